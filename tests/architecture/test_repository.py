"""Rules of the repository itself."""

import importlib
import pkgutil
import re
import subprocess
from graphlib import TopologicalSorter
from pathlib import Path

import grimp

import mesh
from mesh.config import ENV_PREFIX, ProcessSettings

ROOT = Path(__file__).resolve().parents[2]
CONFIGURED = ["services.auth", "services.ratelimit", "services.metering", "services.billing", "services.notification"]
CONFIGURED += ["edge_proxy", "graphql_gateway"]


PACKAGES = ["mesh", "contract", "services", "edge_proxy", "graphql_gateway", "cli", "demo"]
# What a running stack writes; the pages may name it, the repository does not have it.
WRITTEN_AT_RUN_TIME = {"stack.json", "var/stack.json", "var/secrets.json", "share/tollway/", "credentials.json"}


def tracked():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.splitlines()]


def descendants(cls):
    for child in cls.__subclasses__():
        yield child
        yield from descendants(child)


def test_every_variable_is_in_the_example_environment():
    for package in CONFIGURED:
        importlib.import_module(f"{package}.config")
    wanted = set()
    for settings in [ProcessSettings, *descendants(ProcessSettings)]:
        if settings.__module__.split(".")[0] not in {"tests", "conftest"}:
            prefix = settings.model_config.get("env_prefix", ENV_PREFIX)
            wanted |= {
                str(field.validation_alias or prefix + name).upper() for name, field in settings.model_fields.items()
            }
    listed = set(re.findall(r"^#? ?(TOLLWAY_[A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert sorted(wanted - listed) == []


def test_the_lock_names_no_host():
    assert "://" not in (ROOT / "requirements.lock").read_text()


def test_every_dependency_has_its_reason():
    page = (ROOT / "docs" / "dependencies.md").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    names = re.findall(r'^    "([a-z][a-z0-9-]+)(?:\[\w+\])?[><=]', project, re.MULTILINE)
    assert len(names) > 20
    assert [name for name in names if f"| {name} |" not in page] == []


def test_every_package_of_ours_says_what_it_owns():
    folders = [ROOT / package.replace(".", "/") for package in CONFIGURED] + [ROOT / "cli", ROOT / "mesh"]
    pages = [(folder / "README.md").read_text().lower() for folder in folders]
    assert all("owns" in page and "does not own" in page for page in pages)


def test_no_clock_or_chance_in_services():
    forbidden = re.compile(r"datetime\.now\(|time\.time\(|\buuid4\(|^import random|random\.random\(", re.MULTILINE)
    found = [
        str(file.relative_to(ROOT)) for file in (ROOT / "services").rglob("*.py") if forbidden.search(file.read_text())
    ]
    assert found == []


def test_every_module_says_why_it_exists():
    silent = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.suffix == ".py"
        and path.relative_to(ROOT).parts[0] in PACKAGES
        and path.exists()
        and path.read_text().strip()
        and not path.read_text().lstrip().startswith('"""')
    ]
    assert silent == []


def test_mesh_modules_can_be_imported_one_by_one():
    for module in pkgutil.walk_packages(mesh.__path__, "mesh."):
        importlib.import_module(module.name)


def test_make_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z0-9-]+):", text, re.MULTILINE)
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert len(targets) > 20
    assert [name for name in targets if not re.search(rf"^  {name} +\S", listed.stdout, re.MULTILINE)] == []
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert sorted(phony.split()) == sorted(targets)


def test_every_variable_says_what_it_means_and_shows_its_real_default():
    page = (ROOT / "docs" / "variables.md").read_text()
    rows = re.findall(r"^\| `(TOLLWAY_\w+)` \| [^|]+ \| ([^|]*) \| [^|]* \|(.*)\|$", page, re.MULTILINE)
    assert len(rows) > 60
    assert [name for name, _, meaning in rows if not meaning.strip()] == []
    defaults = {name: default.strip("`") for name, default, _ in rows}
    shown = re.findall(
        r"^(?:# )?(TOLLWAY_\w+)=(\S*)(?:[ \t]+# (.*))?$", (ROOT / ".env.example").read_text(), re.MULTILINE
    )
    wrong = [
        name
        for name, value, meaning in shown
        if value and defaults[name] not in {"", "none", "must be given"} and not meaning.startswith("example")
        if value.removesuffix(".0") != defaults[name].removesuffix(".0")
    ]
    assert wrong == []


def test_modules_do_not_import_each_other_in_a_circle():
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    TopologicalSorter({name: graph.find_modules_directly_imported_by(name) for name in graph.modules}).prepare()


def test_every_file_and_folder_that_a_page_names_is_there():
    names = [str(path.relative_to(ROOT)) for path in tracked()]
    pages = [path for path in tracked() if path.suffix == ".md" and path.name != "CHANGELOG.md"]
    file = re.compile(r"(?<![\w/.*{<>}$-])([A-Za-z_.][\w./-]*\.(?:py|sql|lua|proto|md|toml|yaml|graphql|json))\b")
    folder = re.compile(r"`((?:[\w.-]+/)+)`")
    missing = set()
    for page in pages:
        text = page.read_text()
        named = {*file.findall(text), *folder.findall(text)} - WRITTEN_AT_RUN_TIME
        missing |= {(page.name, name) for name in named if not any(f"/{name}" in f"/{each}" for each in names)}
    assert sorted(missing) == []
