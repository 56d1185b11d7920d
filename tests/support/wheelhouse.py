"""Wheels made of what this environment has installed, so that a test can install into another one without a registry.

An installed distribution lists its files in RECORD; packed again they are a wheel, less its scripts, which pip writes
anew from the entry points. Whatever is offered, pip takes only what is asked for: a dependency that a package forgets
to name is missing where its wheel is installed.
"""

from __future__ import annotations

import importlib.metadata
import zipfile
from importlib.metadata import Distribution
from pathlib import Path

OURS = "tollway"


def make_wheelhouse(folder: Path) -> None:
    """Pack every installed distribution but our own."""
    folder.mkdir()
    for distribution in importlib.metadata.distributions():
        if distribution.name.lower() != OURS and distribution.read_text("WHEEL"):
            _pack(distribution, folder)


def _pack(distribution: Distribution, folder: Path) -> None:
    name = distribution.name.replace("-", "_").replace(".", "_")
    with zipfile.ZipFile(folder / f"{name}-{distribution.version}-{_tag(distribution)}.whl", "w") as wheel:
        for file in distribution.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts and file.locate().is_file():
                wheel.write(file.locate(), str(file))


def _tag(distribution: Distribution) -> str:
    """Returns the compressed tag of the wheel that it was installed from: `cp311-cp311-manylinux_2_28_x86_64`."""
    lines = (distribution.read_text("WHEEL") or "").splitlines()
    tags = [line.removeprefix("Tag: ").split("-") for line in lines if line.startswith("Tag: ")]
    return "-".join(".".join(dict.fromkeys(tag[part] for tag in tags)) for part in range(3))
