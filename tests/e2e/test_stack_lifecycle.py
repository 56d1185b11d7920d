"""`tollway up` as a user runs it: it keeps what it has, leaves nothing behind, and says in one line what is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time

import aiohttp
import asyncpg
import psutil
import pytest
import redis

from cli.stack import stack_file
from tests.support.stack import running_stack

pytestmark = pytest.mark.timeout(600)

ENDED_SECONDS_MAX = 60.0


def tollway(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=240,
        check=False,
    )


def assert_one_line(done, *parts):
    assert done.returncode == 1, done
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for part in ("tollway: ", *parts):
        assert part in lines[0]


def all_pids(stack):
    return [pid for pids in stack.file["pids"].values() for pid in pids]


def assert_ended(pids):
    deadline = time.monotonic() + ENDED_SECONDS_MAX
    while left := [pid for pid in pids if stack_file.is_running(pid)]:
        names = [psutil.Process(pid).cmdline() for pid in left if stack_file.is_running(pid)]
        assert time.monotonic() < deadline, f"still there: {names}"
        time.sleep(0.05)


def assert_described(stack):
    assert (stack.data_dir / "stack.json").stat().st_mode & 0o077 == 0
    assert len(stack.file["edge"]["pids"]) == 2, "a supervisor and its worker"
    assert all(stack_file.is_running(pid) for pid in all_pids(stack))
    assert stack.file["pids"]["supervisor"] == [stack.process.pid]


def assert_commands_work(data_dir):
    status = tollway("status", "--data-dir", data_dir)
    assert (status.returncode, status.stderr) == (0, "")
    assert tollway("seed", "--data-dir", data_dir).stdout == "0 organizations were new\n"
    states = tollway("migrate", "status", "--data-dir", data_dir).stdout.splitlines()
    assert states
    assert all(line.startswith("applied") for line in states)


def ask_edge(stack, plan="starter"):
    async def ask():
        key = stack.organization(plan)["api_key"]
        async with (
            aiohttp.ClientSession() as http,
            http.get(stack.file["edge"]["url"] + "/echo", headers={"X-API-Key": key}) as answer,
        ):
            return answer.status

    return asyncio.run(ask())


def stored_events(stack):
    async def count():
        connection = await asyncpg.connect(stack.file["postgres"]["dsn"])
        try:
            return await connection.fetchval("SELECT count(*) FROM metering.usage_events")
        finally:
            await connection.close()

    return asyncio.run(count())


@pytest.fixture
def data_dir(stack_folder):
    return stack_folder


def test_ctrl_c_leaves_nothing_behind_and_a_second_start_keeps_everything_and_makes_nothing_anew(data_dir):
    with running_stack(data_dir, "--workers", "1") as stack:
        assert ask_edge(stack) == 200
        key, pids = stack.organization("starter")["api_key"], all_pids(stack)
        assert_described(stack)
        assert_commands_work(data_dir)
        assert_one_line(tollway("up", "--ports", "auto", "--data-dir", data_dir), "already runs")
        assert ask_edge(stack) == 200
        assert stack.stop() == 0
        assert_ended(pids)
    assert not (data_dir / "stack.json").exists()
    assert not (data_dir / "lock").exists()
    journal = {path: path.stat().st_size for path in (data_dir / "edge").rglob("*") if path.is_file()}

    initialized = (data_dir / "postgres" / "initialized").stat().st_mtime_ns
    with running_stack(data_dir, "--workers", "1") as stack:
        # What takes long at the first start is not done again.
        assert (data_dir / "postgres" / "initialized").stat().st_mtime_ns == initialized
        assert "0 demo organizations are new" in stack.output.read_text()
        assert stack.organization("starter")["api_key"] == key
        assert journal  # the key snapshot at least; what is acknowledged may go from the journal
        assert redis.Redis.from_url(stack.file["redis"]["url"]).dbsize() > 0
        assert ask_edge(stack) == 200
        deadline = time.monotonic() + ENDED_SECONDS_MAX
        while stored_events(stack) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_killed_stack_takes_its_children_along_and_its_successor_starts(data_dir):
    with running_stack(data_dir, "--workers", "1") as stack:
        key, pids = stack.organization("pro")["api_key"], all_pids(stack)
        stack.process.kill()
        stack.process.wait()
        assert_ended(pids)
    assert_one_line(tollway("status", "--data-dir", data_dir), "killed")

    with running_stack(data_dir, "--workers", "1") as stack:
        assert "killed" in stack.output.read_text()
        assert stack.organization("pro")["api_key"] == key
        assert ask_edge(stack, "pro") == 200
        pids = all_pids(stack)
        (billing,) = stack.file["services"]["billing"]["pids"]
        os.kill(billing, signal.SIGKILL)
        assert stack.process.wait(60) == 1
        last = stack.output.read_text().strip().splitlines()[-1]
        assert last.startswith("tollway: billing was killed by SIGKILL: ")
        assert_ended(pids)
    assert not (data_dir / "stack.json").exists()

    with running_stack(data_dir, "--workers", "1", "--reset", "--restart") as stack:
        assert stack.organization("pro")["api_key"] != key
        assert stored_events(stack) == 0
        (notification,) = stack.file["services"]["notification"]["pids"]
        os.kill(notification, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while stack.file["services"]["notification"]["pids"] == [notification]:
            assert stack.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert tollway("status", "--data-dir", data_dir).returncode == 0


def test_taken_port_is_named_with_the_option_that_chooses_another(data_dir):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        done = tollway("up", "--ports", "auto", "--gateway-port", port, "--data-dir", data_dir)
    assert_one_line(done, f"port {port} for gateway is taken", "--gateway-port")
    assert not (data_dir / "lock").exists()


def test_half_written_database_is_refused_with_the_way_out(data_dir):
    (data_dir / "postgres" / "data").mkdir(parents=True)
    done = tollway("up", "--ports", "auto", "--data-dir", data_dir)
    assert_one_line(done, "half-written", "--reset")
    assert (data_dir / "postgres" / "data").exists()


def test_folder_that_postgres_may_not_enter_is_named(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    if os.geteuid() == 0:
        done = tollway("up", "--ports", "auto", "--data-dir", closed / "var")
        assert_one_line(done, "may not enter", "--data-dir")
    else:
        closed.chmod(0o500)
        done = tollway("up", "--ports", "auto", "--data-dir", closed / "var")
        assert_one_line(done, "cannot be written")
        closed.chmod(0o700)


def test_a_child_that_does_not_start_ends_the_stack_with_its_own_words(data_dir):
    done = tollway("up", "--ports", "auto", "--data-dir", data_dir, TOLLWAY_LOG_LEVEL="loud")
    assert_one_line(done, "ended with exit status 2", "TOLLWAY_LOG_LEVEL")
    assert not (data_dir / "stack.json").exists()


def test_kept_secrets_that_are_gone_are_missed(data_dir):
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "initialized").touch()
    assert_one_line(tollway("up", "--ports", "auto", "--data-dir", data_dir), "secrets.json", "--reset")


def test_version_of_the_file_is_the_one_of_the_contract(data_dir):
    data_dir.mkdir()
    (data_dir / "stack.json").write_text(json.dumps({"version": 99}))
    assert_one_line(tollway("status", "--data-dir", data_dir), "version")
