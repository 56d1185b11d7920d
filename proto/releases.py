"""Holds the contract: buf's lint, and buf's comparison with the last release. `--release VERSION` keeps a new one.

A release is the descriptor set of all protos as they were: `proto/releases/<version>.binpb`, committed, never changed.
What was released may not change its meaning: a field keeps its number, type and name, an RPC its request and answer.
Without any release there is nothing to compare with.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from generate import PROTO, ROOT, protoc

RELEASES = PROTO / "releases"
VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
BUF = Path(sysconfig.get_path("scripts")) / "buf"
CONFIG = ROOT / "buf.yaml"


def newest_release(releases: Path) -> Path | None:
    """Return the descriptor set of the highest version."""
    return max(releases.glob("*.binpb"), key=lambda path: version_of(path.stem), default=None)


def version_of(text: str) -> tuple[int, ...]:
    """Return a version's three numbers.

    Raises:
        ValueError: It has another form.
    """
    found = VERSION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no version: three numbers, as in 0.1.0")
    return tuple(int(number) for number in found.groups())


def write_image(path: Path, source: Path, *, is_for_lint: bool) -> None:
    """Write the descriptor set of a folder's protos; lint also reads their comments."""
    comments = ["--include_source_info"] if is_for_lint else []
    protoc(f"--descriptor_set_out={path}", "--include_imports", *comments, source=source)


def check(source: Path, releases: Path) -> bool:
    """Lint the protos and compare them with the newest release; buf says what is wrong."""
    with tempfile.TemporaryDirectory() as scratch:
        now = Path(scratch) / "now.binpb"
        write_image(now, source, is_for_lint=True)
        if not _buf("lint", str(now)):
            return False
        newest = newest_release(releases)
        if newest is None:
            print("buf breaking: no release yet, nothing to compare with")
            return True
        return _buf("breaking", str(now), "--against", str(newest))


def release(version: str, source: Path, releases: Path) -> Path:
    """Keep the contract as it is now.

    Raises:
        ValueError: The version is not above the newest one, or the contract breaks that one.
    """
    newest = newest_release(releases)
    if newest is not None and version_of(version) <= version_of(newest.stem):
        raise ValueError(f"{version} is not above the newest release, {newest.stem}")
    path = releases / f"{'.'.join(map(str, version_of(version)))}.binpb"
    if not check(source, releases):
        raise ValueError("the contract is not fit for a release: see above")
    releases.mkdir(exist_ok=True)
    write_image(path, source, is_for_lint=False)
    return path


def _buf(*arguments: str) -> bool:
    command = [str(BUF), *arguments, "--config", str(CONFIG)]
    return subprocess.run(command, check=False).returncode == 0  # noqa: S603 - our own program and our own files


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, or with `--release` keep a release. Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--release", metavar="VERSION", help="keep the contract as this version, as in 0.1.0")
    parser.add_argument("--source", type=Path, default=PROTO, help="the folder of the protos")
    parser.add_argument("--releases", type=Path, default=RELEASES, help="the folder of the releases")
    given = parser.parse_args(arguments)
    if given.release is None:
        return 0 if check(given.source, given.releases) else 1
    try:
        path = release(given.release, given.source, given.releases)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{path} holds the contract of {given.release}: commit it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
