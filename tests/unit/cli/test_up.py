"""The order in which a stack comes up and goes down, with fakes in place of processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal

import pytest

from cli.stack import StackError, children, up
from cli.stack.installation import Options
from cli.stack.layout import is_locked
from cli.stack.ports import DEFAULT_PORTS
from cli.stack.servers.running import RunningServers


class FakeProcess:
    def __init__(self):
        self.pid = os.getpid()
        self.returncode = None

    def poll(self):
        return self.returncode


class World:
    """Records what happens, in order."""

    def __init__(self, installation, monkeypatch):
        self.installation = installation
        self.events = []
        self.options = Options(data_dir=installation.layout.data_dir, given_ports={})
        monkeypatch.setattr(up, "running_servers", self.servers)
        monkeypatch.setattr(up, "migrate_and_seed", self.migrate_and_seed)
        monkeypatch.setattr(up, "subscribe", lambda *_: self.events.append("subscribe"))
        monkeypatch.setattr(up.ports.Ports, "require_free", lambda _self, parts: self.events.append(("ports", parts)))
        monkeypatch.setattr(children, "start", self.start)
        monkeypatch.setattr(children, "stop", self.stop)
        monkeypatch.setattr(children, "wait_until_ready", self.wait_until_ready)
        monkeypatch.setattr(children, "wait_until_whole", lambda _edge: "")
        self.ready_error = None

    @contextlib.contextmanager
    def servers(self, *_arguments):
        self.events.append("servers up")
        try:
            yield RunningServers(installation=self.installation, pids={"postgres": os.getpid()})
        finally:
            self.events.append("servers down")

    async def migrate_and_seed(self, _installation):
        self.events.append("migrate")
        return 4

    def start(self, part):
        self.events.append(f"start {part.name}")
        return children.Child(part, FakeProcess())

    def stop(self, stopped):
        self.events.append(("stop", [child.name for child in stopped], self.installation.layout.stack_file.exists()))

    def wait_until_ready(self, waited):
        self.events.append(f"ready {len(waited)}")
        if self.ready_error:
            raise self.ready_error

    def up(self):
        return up.running_stack(self.options, lambda _text: None)


@pytest.fixture
def world(installation, monkeypatch):
    return World(installation, monkeypatch)


def test_schema_before_processes_and_subscriptions_after_readiness(world):
    with world.up():
        pass
    order = [world.events.index(each) for each in ("servers up", "migrate", "start auth", "ready 9", "subscribe")]
    assert order == sorted(order)


def test_the_stack_file_is_there_exactly_while_everything_runs(world):
    path = world.installation.layout.stack_file
    with world.up():
        described = json.loads(path.read_text())
        assert described["pids"]["supervisor"] == [os.getpid()]
        assert "subscribe" in world.events
    assert not path.exists()
    stops = [event for event in world.events if event[0] == "stop"]
    assert [names for _, names, _ in stops[:2]] == [["edge"], ["gateway"]]
    assert {"auth", "metering", "upstream", "smtp"} <= set(stops[2][1])
    assert not any(file_exists for _, _, file_exists in stops)
    assert world.events[-1] == "servers down"


def test_the_lock_is_held_meanwhile_and_gone_afterwards(world):
    with world.up():
        assert is_locked(world.installation.layout.lock)
    assert not world.installation.layout.lock.exists()


def test_a_start_that_fails_takes_everything_down_again(world):
    world.ready_error = StackError("auth is not ready")
    with pytest.raises(StackError, match="auth is not ready"), world.up():
        pytest.fail("it is not up")
    assert world.events[-1] == "servers down"
    assert not world.installation.layout.stack_file.exists()
    assert not world.installation.layout.lock.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_a_second_one_does_not_disturb_the_clean_up(world, number):
    before = signal.getsignal(number)

    def turn():
        signal.raise_signal(number)

    def serve():
        with world.up() as stack:
            try:
                stack.serve(turn)
            finally:
                signal.raise_signal(number)
                world.events.append("still here")

    with pytest.raises(KeyboardInterrupt):
        serve()
    assert "still here" in world.events
    assert world.events[-1] == "servers down"
    assert signal.getsignal(number) == before


def test_a_server_that_ends_ends_the_stack(world, monkeypatch):
    with world.up() as stack:
        monkeypatch.setattr("cli.stack.stack_file.is_running", lambda _pid: False)
        with pytest.raises(StackError, match="postgres has ended"):
            stack.serve(lambda: None)


def test_a_restarted_child_is_described_anew(world, monkeypatch):
    with world.up() as stack:
        assert stack.dead() == []
        stack.restart("edge")
        assert world.events[-3:] == [("stop", ["edge"], True), "start edge", "ready 1"]
        assert set(stack.sources()) == {"smtp", "upstream", "auth", "ratelimit", "metering", "billing"} | {
            "notification",
            "gateway",
            "edge",
        }


def test_ports_of_external_servers_need_not_be_free(world):
    world.options = Options(
        data_dir=world.installation.layout.data_dir, given_ports={}, postgres_admin_dsn="x", redis_url="y"
    )
    with world.up():
        pass
    (needed,) = [event[1] for event in world.events if event[0] == "ports"]
    assert set(DEFAULT_PORTS) - set(needed) == {"postgres", "redis", "kafka", "kafka-controller"}


def test_a_folder_that_cannot_be_made_is_one_clear_error(world, tmp_path):
    (tmp_path / "file").write_text("")
    world.options = Options(data_dir=tmp_path / "file" / "var", given_ports={})
    with pytest.raises(StackError, match="cannot be written"), world.up():
        pytest.fail("it is a file")


def test_reset_starts_with_new_secrets(world):
    (world.installation.layout.edge / "journal").write_text("old")
    world.options = Options(data_dir=world.installation.layout.data_dir, given_ports={}, reset=True)
    with world.up():
        assert list(world.installation.layout.edge.iterdir()) == []
