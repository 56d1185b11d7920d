"""Embedded and external servers: what survives a restart, and what is said when one cannot start."""

from __future__ import annotations

import email
import os
import signal
import smtplib
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis

from cli.stack import StackError, children
from cli.stack.installation import Options
from cli.stack.layout import Layout
from cli.stack.parts import Part
from cli.stack.ports import Ports, choose, free_ports
from cli.stack.process import RunAs
from cli.stack.servers import roles
from cli.stack.servers.postgres import start_postgres
from cli.stack.servers.redis import start_redis
from cli.stack.servers.running import running_servers
from tests.support.folders import open_folder


@pytest.fixture
def folder():
    with open_folder("tests-servers") as opened:
        yield opened


def postgres_on(folder, password="secret"):
    (port,) = free_ports(1)
    return start_postgres(
        folder=folder / "postgres", port=port, superuser_password=password, log_path=folder / "postgres.log"
    )


async def execute(dsn, statement):
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_postgres_keeps_its_data_and_survives_being_killed(folder):
    server = postgres_on(folder)
    await execute(server.admin_dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    server = postgres_on(folder)
    try:
        assert await execute(server.admin_dsn, "SELECT answer FROM kept") == 42
        assert await execute(server.admin_dsn, "SHOW server_version") >= "18"
        assert await execute(server.admin_dsn, "SHOW listen_addresses") == "127.0.0.1"
        assert await execute(server.admin_dsn, "SHOW fsync") == "on"
    finally:
        server.stop()
    assert server.process.returncode == 0


def test_postgres_that_cannot_have_its_port_says_why(folder):
    first = postgres_on(folder)
    try:
        with pytest.raises(StackError, match="PostgreSQL ended with exit status 1 on port"):
            start_postgres(
                folder=folder / "second", port=first.port, superuser_password="x", log_path=folder / "second.log"
            )
    finally:
        first.stop()


def test_redis_keeps_its_data(folder):
    (port,) = free_ports(1)
    for expected in (None, b"1"):
        server = start_redis(folder=folder / "redis", port=port, log_path=folder / "redis.log")
        with redis.Redis.from_url(server.url) as client:
            assert client.get("kept") == expected
            client.set("kept", 1)
        server.stop()


def test_redis_asks_for_its_password_and_its_file_is_its_owners_alone(folder):
    (port,) = free_ports(1)
    server = start_redis(folder=folder / "redis", port=port, log_path=folder / "redis.log", password="ab" * 32)
    try:
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.get("kept")
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", 1)
        arguments = Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
        assert server.password.encode() not in arguments
    finally:
        server.stop()
    files = [path for path in folder.rglob("*") if path.is_file() and "redis" in str(path)]
    assert {path.name: path.stat().st_mode & 0o077 for path in files} == dict.fromkeys((path.name for path in files), 0)
    assert any("appendonly" in path.name for path in files)


def test_redis_that_cannot_have_its_port_says_why(folder):
    (port,) = free_ports(1)
    server = start_redis(folder=folder / "redis", port=port, log_path=folder / "redis.log")
    try:
        with pytest.raises(StackError, match="Redis ended with exit status 1 on port"):
            start_redis(folder=folder / "other", port=port, log_path=folder / "other.log")
    finally:
        server.stop()


def test_external_servers_are_used_and_embedded_ones_not_started(folder):
    postgres = postgres_on(folder)
    try:
        layout = Layout(data_dir=folder / "var")
        layout.create()
        options = Options(
            data_dir=layout.data_dir,
            given_ports={},
            postgres_admin_dsn=postgres.admin_dsn,
            redis_url="redis://127.0.0.1:1/0",
            kafka_bootstrap=None,
        )
        with running_servers(options, layout, choose({}, automatic=False), lambda _text: None) as servers:
            assert servers.pids == {}
            assert servers.installation.postgres.port == postgres.port
            assert roles.SUPERUSER not in servers.installation.postgres.passwords
            assert servers.installation.redis_url == "redis://127.0.0.1:1/0"
        assert not layout.postgres.exists()
    finally:
        postgres.stop()


def test_external_server_that_is_not_there_is_one_clear_error(folder):
    layout = Layout(data_dir=folder / "var")
    layout.create()
    for dsn, said in (("postgresql://a:b@127.0.0.1:1/x", "cannot be set up"), ("nonsense", "ADMIN_DSN")):
        options = Options(data_dir=layout.data_dir, given_ports={}, postgres_admin_dsn=dsn, redis_url="redis://r/0")
        with (
            pytest.raises(StackError, match=said),
            running_servers(options, layout, Ports(by_part={}), lambda _text: None),
        ):
            pytest.fail("it is not there")


def test_automatic_ports_are_different_and_kept_from_other_processes():
    mine = free_ports(20)
    assert len(set(mine)) == 20
    code = "from cli.stack.ports import free_ports; print(*free_ports(200))"
    others = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(mine) & set(map(int, others))


def test_mails_are_caught_as_files(tmp_path):
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    command = [
        sys.executable,
        "-m",
        "cli.stack.servers.smtp",
        "--listen",
        address,
        "--folder",
        str(tmp_path / "mail"),
    ]
    part = Part(
        name="smtp",
        command=command,
        environment=dict(os.environ),
        log_path=tmp_path / "smtp.log",
        ready_url=f"tcp://{address}",
    )
    child = children.start(part)
    try:
        children.wait_until_ready([child])
        with smtplib.SMTP("127.0.0.1", port) as client:
            for number in range(2):
                message = f"Subject: bill {number}\r\n\r\npay me\r\n"
                client.sendmail("a@tollway.example", ["b@ferry.example", "c@ferry.example"], message)
        with smtplib.SMTP("127.0.0.1", port) as client, pytest.raises(smtplib.SMTPSenderRefused):
            client.sendmail("a@b", ["c@d"], b"x" * 40_000_000)
    finally:
        children.stop([child])
    mails = [email.message_from_bytes(path.read_bytes()) for path in sorted((tmp_path / "mail").glob("*.eml"))]
    assert [mail["Subject"] for mail in mails] == ["bill 0", "bill 1"]
    assert mails[0]["X-Envelope-To"] == "b@ferry.example, c@ferry.example"
    assert child.process.returncode == 0


def test_a_taken_smtp_port_is_said_in_one_line(tmp_path):
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "cli.stack.servers.smtp", "--folder", str(tmp_path), "--listen"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen(1)
        done = subprocess.run([*command, f"127.0.0.1:{port}"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("smtp: ")
    assert len(done.stderr.strip().splitlines()) == 1


def test_postgres_runs_from_a_copy_where_its_user_cannot_reach_the_wheel(folder, monkeypatch):
    open_way = RunAs.first_closed

    def first_closed(run_as, path):
        return path if "site-packages" in str(path) else open_way(run_as, path)

    monkeypatch.setattr(RunAs, "first_closed", first_closed)
    server = postgres_on(folder)
    try:
        program = psutil.Process(server.process.pid).exe()
        assert program.startswith(str(folder / "postgres" / "programs"))
    finally:
        server.stop()
