"""Children: how they start, what is said when they end, and that nothing of them stays."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest

from cli.stack import StackError, children, stack_file, watch
from cli.stack.parts import Part
from cli.stack.process import die_with_parent
from cli.stack.watch import Restarter, newest_change


def part(tmp_path, code, name="thing", ready_url="http://127.0.0.1:1/"):
    return Part(
        name=name,
        command=[sys.executable, "-S", "-c", code],
        environment=dict(os.environ),
        log_path=tmp_path / f"{name}.log",
        ready_url=ready_url,
    )


def ended(child):
    child.process.wait(10)
    return child


def test_a_dead_child_is_named_with_status_and_last_words(tmp_path):
    child = ended(children.start(part(tmp_path, "print('no more'); raise SystemExit(3)")))
    with pytest.raises(StackError, match="thing ended with exit status 3: no more"):
        children.raise_if_dead([child])
    with pytest.raises(StackError, match="exit status 3"):
        children.wait_until_ready([child])


def test_a_killed_child_is_named_with_the_signal(tmp_path):
    child = children.start(part(tmp_path, "import signal; signal.pause()"))
    assert child.death() is None
    child.process.kill()
    assert "killed by SIGKILL" in ended(child).death()


def test_the_log_of_the_run_before_is_kept(tmp_path):
    ended(children.start(part(tmp_path, "print('first')")))
    ended(children.start(part(tmp_path, "print('second')")))
    assert (tmp_path / "thing.log.1").read_text() == "first\n"
    assert (tmp_path / "thing.log").read_text() == "second\n"


def test_a_child_that_is_not_ready_in_time_is_named_with_the_reason(tmp_path):
    child = children.start(part(tmp_path, "import signal; signal.pause()"))
    try:
        with pytest.raises(StackError, match=r"thing is not ready after 0 s .*refused"):
            children.wait_until_ready([child], seconds_max=0)
    finally:
        children.stop([child])


FAMILY = """
import os, signal, sys
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(os.getpid(), flush=True)
signal.pause()
"""


def test_stopping_takes_what_the_child_itself_started(tmp_path):
    child = children.start(part(tmp_path, FAMILY))
    while not (tmp_path / "thing.log").read_text().strip():
        assert child.process.poll() is None
    grandchild = int((tmp_path / "thing.log").read_text())
    assert child.pids() == [child.process.pid, grandchild]
    children.stop([child])
    assert child.process.poll() is not None
    deadline_reads = 10_000
    while stack_file.is_running(grandchild) and deadline_reads:
        deadline_reads -= 1
    assert not stack_file.is_running(grandchild)


STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("on", flush=True)
while True:
    signal.pause()
"""


def test_a_child_that_ignores_being_stopped_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(children, "STOP_SECONDS_MAX", 0.2)
    child = children.start(part(tmp_path, STUBBORN))
    while not (tmp_path / "thing.log").read_text():
        assert child.process.poll() is None
    children.stop([child])
    assert child.process.returncode == -signal.SIGKILL


SUPERVISOR = """
import signal, subprocess, sys
from cli.stack.process import die_with_parent
child = subprocess.Popen(["sleep", "1000"], preexec_fn=die_with_parent(signal.SIGTERM))
print(child.pid, flush=True)
signal.pause()
"""


def test_children_end_with_a_supervisor_that_is_killed():
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR], stdout=subprocess.PIPE, text=True)
    grandchild = int(supervisor.stdout.readline())
    assert stack_file.is_running(grandchild)
    ended = os.pidfd_open(grandchild)
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()
    # The descriptor can be read once its process has ended.
    assert select.select([ended], [], [], 60)[0]
    os.close(ended)


def test_a_child_of_a_parent_that_is_gone_ends_at_once(monkeypatch):
    prepare = die_with_parent(signal.SIGTERM)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    monkeypatch.setattr(os, "setpgid", lambda *_: None)
    # The test runs in this process, and a umask that stays closes the folders of every test after it.
    masks = []
    monkeypatch.setattr(os, "umask", masks.append)
    monkeypatch.setattr("cli.stack.process._LIBC", type("Libc", (), {"prctl": staticmethod(lambda *_: 0)}))
    prepare()
    assert left == [1]
    assert masks == [0o077]


class FakeStack:
    def __init__(self, *dying):
        self.dying = list(dying)
        self.restarted = []
        self.watched = {}

    def dead(self):
        return self.dying

    def restart(self, name):
        self.restarted.append(name)
        self.dying = [child for child in self.dying if child.name != name]

    def sources(self):
        return self.watched


def test_a_death_stops_all_by_default(tmp_path):
    child = ended(children.start(part(tmp_path, "raise SystemExit(7)")))
    watch.StopAll(FakeStack())()
    with pytest.raises(StackError, match="exit status 7"):
        watch.StopAll(FakeStack(child))()


def test_a_death_is_repaired_where_that_was_asked_for_but_not_for_ever(tmp_path):
    child = ended(children.start(part(tmp_path, "raise SystemExit(7)")))
    stack, said = FakeStack(child), []
    restart = watch.Restart(stack, said.append)
    restart()
    assert stack.restarted == ["thing"]
    assert "exit status 7" in said[0]
    for _ in range(watch.RESTARTS_MAX - 1):
        stack.dying = [child]
        restart()
    stack.dying = [child]
    with pytest.raises(StackError, match="times already"):
        restart()


def test_dev_restarts_whom_a_change_concerns_and_nobody_else(tmp_path, monkeypatch):
    monkeypatch.setattr("cli.stack.watch.ROOT", tmp_path)
    monkeypatch.setattr("cli.stack.watch.LOOK_SECONDS", 0.0)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text("1")
        os.utime(tmp_path / folder / "a.py", (1_000, 1_000))
    stack, said = FakeStack(), []
    stack.watched = {"first": ("one",), "second": ("two",), "third": ()}
    restarter = Restarter(stack, said.append)
    restarter()
    assert stack.restarted == []
    os.utime(tmp_path / "two" / "a.py", (2_000, 2_000))
    restarter()
    restarter()
    assert stack.restarted == ["second"]


def test_dev_tells_a_death_once_and_waits(tmp_path):
    child = ended(children.start(part(tmp_path, "raise SystemExit(7)")))
    stack, said = FakeStack(child), []
    restarter = Restarter(stack, said.append)
    for _ in range(3):
        restarter._look_at = 0.0
        restarter()
    assert len(said) == 1
    assert stack.restarted == []


def test_only_sources_count_as_changes(tmp_path):
    (tmp_path / "x.pyc").write_text("1")
    assert newest_change(tmp_path) == 0.0
    (tmp_path / "q.sql").write_text("1")
    assert newest_change(tmp_path) > 0.0


def test_a_process_that_has_ended_is_not_running():
    process = subprocess.Popen(["true"])
    while stack_file.is_running(process.pid):  # a zombie counts as ended
        pass
    process.wait()
    assert not stack_file.is_running(process.pid)
    assert stack_file.is_running(os.getpid())
