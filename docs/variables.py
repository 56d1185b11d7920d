"""Writes `docs/variables.md`: every variable, who reads it, its default and its bounds, from the settings classes.

What a variable means stands beside it in `.env.example`, which people copy; this page repeats it. `make docs` writes
the page anew, `--check` compares.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from contract.services import SERVICES
from mesh.config import ENV_PREFIX, ProcessSettings

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "variables.md"
EXAMPLE: Final = ROOT / ".env.example"
MODULES: Final = {**{name: f"services.{name}.config" for name in SERVICES}, "edge": "edge_proxy.config"} | {
    "gateway": "graphql_gateway.config"
}
EVERY: Final = "every process"
# What no settings class reads: the routes file names it, or the `tollway` command asks for it.
ELSEWHERE: Final = {
    "TOLLWAY_UPSTREAM_URL": "edge: its default routes file",
    "TOLLWAY_OWNER_DSN": "tollway migrate",
    "TOLLWAY_POSTGRES_ADMIN_DSN": "tollway up",
}
LINE: Final = re.compile(r"^(?:# )?(TOLLWAY_[A-Z_]+)=(.*?)(?:[ \t]+# (.*))?$", re.MULTILINE)
BOUNDS: Final = (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))


def page() -> str:
    """Return the page's text."""
    meanings = {name: meaning for name, _, meaning in LINE.findall(EXAMPLE.read_text(encoding="utf-8"))}
    lines = [
        "# Variables",
        "",
        "Every variable of the environment that a process reads. Written by `make docs` from the settings classes and",
        "from `.env.example`, the file to copy; `docs/configuration.md` explains how they are used.",
        "",
        "| variable | read by | default | bounds | meaning |",
        "|---|---|---|---|---|",
    ]
    for name, (readers, default, bounds) in {**dict(_fields()), **_elsewhere()}.items():
        meaning = (meanings.get(name) or meanings.get(_as_of_auth(name), "")).replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| `{name}` | {readers} | {default} | {bounds} | {meaning} |")
    return "\n".join(lines) + "\n"


def _fields() -> Iterator[tuple[str, tuple[str, str, str]]]:
    """Yield every field once, in the order of the classes, with all of its readers."""
    readers: dict[str, list[str]] = {}
    fields: dict[str, FieldInfo] = {}
    for process, module in MODULES.items():
        for name, field in _settings(module).model_fields.items():
            readers.setdefault(name, []).append(process)
            fields.setdefault(name, field)
    for name, field in fields.items():
        who = EVERY if len(readers[name]) == len(MODULES) else ", ".join(readers[name])
        yield f"{ENV_PREFIX}{name.upper()}", (who, _default(field), _bounds(field))


def _elsewhere() -> dict[str, tuple[str, str, str]]:
    return {name: (reader, "", "") for name, reader in ELSEWHERE.items()}


def _settings(module: str) -> type[ProcessSettings]:
    """Return the one settings class that a module defines."""
    classes = [each for each in vars(importlib.import_module(module)).values() if isinstance(each, type)]
    (found,) = (each for each in classes if issubclass(each, ProcessSettings) and each.__module__ == module)
    return found


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "must be given"
    if isinstance(value, Path):
        value = value.relative_to(ROOT) if value.is_absolute() else value
    if value is None or value == () or isinstance(value, SecretStr):
        return "none"
    return f"`{value}`"


def _bounds(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{each}`" for each in get_args(field.annotation))
    found = [(word, getattr(each, name, None)) for each in field.metadata for name, word in BOUNDS]
    return ", ".join(f"{word} {value}" for word, value in found if value is not None)


def _as_of_auth(name: str) -> str:
    """Return auth's variable of the same kind: what all services have is explained there once."""
    return re.sub(rf"^{ENV_PREFIX}({'|'.join(each.upper() for each in SERVICES)})_", f"{ENV_PREFIX}AUTH_", name)


def main() -> int:
    """Write the page, or with `--check` compare it. Returns the exit status."""
    if "--check" in sys.argv:
        fresh = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page()
        if not fresh:
            print("docs/variables.md is out of date: run `make docs`")
        return 0 if fresh else 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
