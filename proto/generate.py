"""Generates `gen/python` from the protos, the same bytes every time.

grpcio-tools carries protoc and the gRPC plugin, mypy-protobuf writes the type stubs, googleapis-common-protos ships
Google's annotations, `third_party/proto` holds what no package can ship to us. `--check` generates into a scratch
folder and fails where `gen/python` differs.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import google.api
import grpc_tools

ROOT = Path(__file__).resolve().parents[1]
PROTO = ROOT / "proto"
THIRD_PARTY = ROOT / "third_party" / "proto"
OUT = ROOT / "gen" / "python"
INCLUDES = (
    Path(next(iter(google.api.__path__))).parents[1],
    Path(next(iter(grpc_tools.__path__))) / "_proto",
)


def protoc(*arguments: str, source: Path = PROTO) -> None:
    """Run protoc over every proto below a folder."""
    files = sorted(str(path.relative_to(source)) for path in source.rglob("*.proto"))
    includes = [f"-I{path}" for path in (source, *INCLUDES)]
    scripts = sysconfig.get_path("scripts")
    subprocess.run(  # noqa: S603 - our own interpreter and our own files
        [sys.executable, "-m", "grpc_tools.protoc", *includes, *arguments, *files],
        check=True,
        cwd=source,
        env={**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"},
    )


def generate(out: Path) -> None:
    """Write modules and stubs below `out`."""
    for source in (PROTO, THIRD_PARTY):
        protoc(
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            source=source,
        )
    for path in list(out.rglob("*_pb2_grpc.py")):
        # A file of messages only has no service, and its stub would be an empty module.
        if "_to_server(" not in path.read_text(encoding="utf-8"):
            path.unlink()
            path.with_suffix(".pyi").unlink()


def differences(left: Path, right: Path) -> list[str]:
    """List the files that differ or stand on one side only."""
    names = {str(p.relative_to(side)) for side in (left, right) for p in side.rglob("*.py*") if p.suffix != ".pyc"}
    _, mismatch, errors = filecmp.cmpfiles(left, right, sorted(names), shallow=False)
    return sorted([*mismatch, *errors])


def main() -> int:
    """Generate, or with `--check` compare. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail where gen/python is out of date")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        if options.check:
            stale = differences(Path(scratch), OUT)
            for name in stale:
                print(f"gen/python/{name} is out of date: run `make proto`")
            return 1 if stale else 0
        shutil.rmtree(OUT, ignore_errors=True)
        shutil.copytree(scratch, OUT)
        # The scratch folder is private, and its mode was copied with it.
        OUT.chmod(0o755)
    return 0


if __name__ == "__main__":
    sys.exit(main())
