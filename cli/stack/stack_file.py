"""`stack.json`: what runs, for scripts and tests. Its keys are a contract; more may be added.

A stack that was killed leaves its file behind, and for a moment its processes; the next start clears both.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import psutil

from cli import demo_data
from cli.stack import StackError
from cli.stack.installation import Installation
from cli.stack.layout import Layout
from cli.stack.servers.roles import SUPERUSER
from contract.services import SERVICES

VERSION: Final = 1
GRAPHQL_PATH: Final = "/graphql"
READY_PATH: Final = "/health/ready"
POLL_SECONDS: Final = 0.1
LEFTOVER_SECONDS_MAX: Final = 30.0


def describe(installation: Installation, pids: Mapping[str, list[int]]) -> dict[str, Any]:
    """Return the file's content.

    Args:
        installation: Where things are.
        pids: Every part's processes by its name, and `supervisor`, `postgres`, `redis`, `kafka` where they are ours.
    """
    ports = installation.ports
    return {
        "version": VERSION,
        "pids": {name: list(each) for name, each in pids.items()},
        "edge": {"url": ports.url("edge"), "admin_url": ports.url("edge-admin"), "pids": pids["edge"]},
        "gateway": {
            "url": ports.url("gateway"),
            "graphql_path": GRAPHQL_PATH,
            "metrics_url": f"{ports.url('gateway-metrics')}/metrics",
            "pids": pids["gateway"],
        },
        "services": {
            name: {
                "address": ports.address(name),
                "metrics_url": f"{ports.url(f'{name}-metrics')}/metrics",
                "pids": pids[name],
            }
            for name in SERVICES
        },
        "postgres": {"dsn": _admin_dsn(installation), "dsns": _dsns(installation)},
        "redis": {"url": installation.redis_url},
        "kafka": {"bootstrap": installation.kafka_bootstrap} if installation.kafka_bootstrap else None,
        "upstream": {"url": ports.url("upstream"), "served_log": str(installation.layout.served_log)},
        "smtp": {"address": ports.address("smtp"), "folder": str(installation.layout.mail)},
        "data_dir": str(installation.layout.data_dir),
        "log_dir": str(installation.layout.logs),
        "organizations": [_organization(each, installation) for each in demo_data.TENANTS],
        "operator": _organization(demo_data.OPERATOR, installation),
        "service_account_token": demo_data.SERVICE_ACCOUNT.token(installation.secrets),
    }


def read(path: Path) -> dict[str, Any]:
    """Read what runs.

    Raises:
        StackError: when nothing does, or the file is not what was written.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StackError(f"no stack runs on {path.parent}: start one with `tollway up`") from error
    except ValueError as error:
        raise StackError(f"{path} is not what was written: delete it") from error
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise StackError(f"{path} has another version than {VERSION}")
    return found


def ready_urls(described: dict[str, Any]) -> dict[str, str]:
    """Return where each process of a described stack says whether it is ready."""
    metrics = {name: service["metrics_url"] for name, service in described["services"].items()}
    metrics["gateway"] = described["gateway"]["metrics_url"]
    urls = {name: url.removesuffix("/metrics") + READY_PATH for name, url in metrics.items()}
    urls["edge"] = described["edge"]["admin_url"] + READY_PATH
    urls["upstream"] = described["upstream"]["url"] + READY_PATH
    urls["smtp"] = f"tcp://{described['smtp']['address']}"
    return urls


def _organization(organization: demo_data.Organization, installation: Installation) -> dict[str, Any]:
    secrets = installation.secrets
    return {
        "id": str(organization.organization_id),
        "name": organization.name,
        "plan": organization.plan_id,
        "api_key": organization.api_key(secrets) if organization.api_key_id else None,
        "users": [
            {"id": str(p.person_id), "email": p.email, "password": p.password(secrets), "role": p.role}
            for p in organization.people
        ],
    }


def _admin_dsn(installation: Installation) -> str:
    """Return the superuser's where the server is ours, else the owner's: an external admin's is not ours to write."""
    login = SUPERUSER if SUPERUSER in installation.postgres.passwords else "tollway_owner"
    return installation.postgres.dsn(login)


def _dsns(installation: Installation) -> dict[str, str]:
    """Return connection strings by role, named as in the tests: `owner`, `<service>`, `<service>_system`."""
    return {
        login.removeprefix("tollway_"): installation.postgres.dsn(login)
        for login in installation.postgres.passwords
        if login != SUPERUSER
    }


def clear_leftovers(layout: Layout, say: Callable[[str], None]) -> None:
    """Wait for the end of processes of a run that was killed: they are told by the kernel, and take a moment.

    The lock says that the run itself is over, so its `stack.json` describes nothing any more.
    """
    if not layout.stack_file.exists():
        return
    say("the last run was killed: its data and journal are kept")
    with contextlib.suppress(StackError):
        left = [pid for pids in read(layout.stack_file).get("pids", {}).values() for pid in pids]
        deadline = time.monotonic() + LEFTOVER_SECONDS_MAX
        while any(_is_ours(pid, layout) for pid in left) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    layout.stack_file.unlink(missing_ok=True)


def _is_ours(pid: int, layout: Layout) -> bool:
    """Says whether a process was started before the file that names it: a later one has only inherited the number."""
    try:
        started_seconds = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return False
    return is_running(pid) and started_seconds <= layout.stack_file.stat().st_mtime


def is_running(pid: int) -> bool:
    """Says whether a process is there and has not ended."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
