"""The processes of the stack: what each is started with and how it says that it is ready.

Each gets the secrets that are its own business and no others: the signing key is auth's, the peppers are auth's and
the edge's, Redis' password is the limiter's, a service's passwords and data keys are its own, and so is the private key
by which a process proves itself.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from cli.stack.installation import Installation
from cli.stack.servers.roles import service_logins
from contract.services import RATELIMIT, SERVICES

ROOT: Final = Path(__file__).resolve().parents[2]
# A process runs in the folder that the user is in, so that relative paths of theirs mean what they say. Nothing there
# is imported (-P): a folder of theirs may be called `mesh` or `cli`.
PYTHON: Final = (sys.executable, "-P", "-m")
EDGE_DRAIN_SECONDS: Final = 5
MAIL_FROM: Final = "Tollway <no-reply@tollway.localhost>"
# The external servers' own; the limiter alone is told of Redis.
NOT_INHERITED: Final = ("TOLLWAY_POSTGRES_ADMIN_DSN", "TOLLWAY_REDIS_URL")
WITH_PEPPERS: Final = ("auth", "edge")
WITH_DATA_KEYS: Final = ("auth", "billing", "notification")
WITH_PAGE_TOKENS: Final = ("auth", "billing", "metering")
# Counting and pricing come after the answer; a batch of theirs must not hold up a decision on the same core.
AFTER_THE_REQUEST: Final = ("metering", "billing", "notification")
AFTER_THE_REQUEST_NICENESS: Final = 10
SHARED_SOURCES: Final = ("mesh", "contract", "gen/python/tollway")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = dataclasses.field(repr=False)
    log_path: Path
    # Answers 200 once the process is ready; `tcp://host:port` where a greeting is all there is.
    ready_url: str
    # How far it steps back behind the request path on a machine that they share.
    niceness: int = 0
    # Folders whose change restarts it under `tollway dev`, below ROOT.
    sources: Sequence[str] = ()


def parts(installation: Installation, inherited: Mapping[str, str]) -> list[Part]:
    """Return the processes in the order they start in; they stop in the opposite one.

    Args:
        installation: Where things are and what opens them.
        inherited: The environment of this process, which theirs is based on.
    """
    base = {**inherited, **_shared_environment(installation), "PYTHONUNBUFFERED": "1"}
    smtp, upstream = installation.ports.address("smtp"), installation.ports.address("upstream")
    served_log, mail = str(installation.layout.served_log), str(installation.layout.mail)
    return [
        Part(
            name="smtp",
            command=[*PYTHON, "cli.stack.servers.smtp", "--listen", smtp, "--folder", mail],
            environment=dict(inherited),
            log_path=installation.layout.log("smtp"),
            ready_url=f"tcp://{smtp}",
        ),
        Part(
            name="upstream",
            command=[*PYTHON, "demo.upstream", "--listen", upstream, "--served-log", served_log],
            environment=dict(inherited),
            log_path=installation.layout.log("upstream"),
            ready_url=f"http://{upstream}/health/ready",
            sources=("demo",),
        ),
        *(_service(installation, name, base) for name in SERVICES),
        _gateway(installation, base),
        _edge(installation, base),
    ]


def inherited_environment() -> dict[str, str]:
    """Return this process's environment without what opens more than every part may."""
    return {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}


def _shared_environment(installation: Installation) -> dict[str, str]:
    environment = {"TOLLWAY_ENVIRONMENT": "local"}
    for service in SERVICES:
        environment[f"TOLLWAY_{service.upper()}_ADDRESS"] = installation.ports.address(service)
    if installation.kafka_bootstrap:
        environment["TOLLWAY_KAFKA_BOOTSTRAP"] = installation.kafka_bootstrap
    return environment


def _service(installation: Installation, name: str, base: Mapping[str, str]) -> Part:
    prefix = f"TOLLWAY_{name.upper()}"
    tenant, system = service_logins(name)
    environment = {
        **base,
        f"{prefix}_LISTEN": installation.ports.address(name),
        f"{prefix}_METRICS_LISTEN": installation.ports.address(f"{name}-metrics"),
        f"{prefix}_DSN": installation.postgres.dsn(tenant),
        f"{prefix}_SYSTEM_DSN": installation.postgres.dsn(system),
        **installation.secrets.process_environment(name),
    }
    if name == RATELIMIT.name:
        environment["TOLLWAY_REDIS_URL"] = installation.redis_url
    if name in WITH_DATA_KEYS:
        environment[f"{prefix}_DATA_KEYS"] = installation.secrets.data_keys(name)
    if name in WITH_PAGE_TOKENS:
        environment["TOLLWAY_PAGE_TOKEN_KEY"] = installation.secrets.page_token_key(name)
    if name in WITH_PEPPERS:
        environment["TOLLWAY_KEY_PEPPERS"] = f"1:{installation.secrets.key_pepper}"
    if name == "auth":
        environment["TOLLWAY_SIGNING_KEY"] = installation.secrets.signing_key
        environment.setdefault("TOLLWAY_DASHBOARD_URL", installation.ports.url("gateway"))
    if name == "notification":
        environment.setdefault("TOLLWAY_SMTP_URL", f"smtp://{installation.ports.address('smtp')}")
        environment.setdefault("TOLLWAY_MAIL_FROM", MAIL_FROM)
    return Part(
        name=name,
        command=[*PYTHON, f"services.{name}"],
        environment=environment,
        log_path=installation.layout.log(name),
        ready_url=f"{installation.ports.url(f'{name}-metrics')}/health/ready",
        niceness=AFTER_THE_REQUEST_NICENESS if name in AFTER_THE_REQUEST else 0,
        sources=(*SHARED_SOURCES, f"services/{name}"),
    )


def _gateway(installation: Installation, base: Mapping[str, str]) -> Part:
    return Part(
        name="gateway",
        command=[*PYTHON, "graphql_gateway"],
        environment={
            **base,
            **installation.secrets.process_environment("graphql_gateway"),
            "TOLLWAY_GATEWAY_LISTEN": installation.ports.address("gateway"),
            "TOLLWAY_GATEWAY_METRICS_LISTEN": installation.ports.address("gateway-metrics"),
        },
        log_path=installation.layout.log("gateway"),
        ready_url=f"{installation.ports.url('gateway-metrics')}/health/ready",
        sources=(*SHARED_SOURCES, "graphql_gateway"),
    )


def _edge(installation: Installation, base: Mapping[str, str]) -> Part:
    environment = {
        **base,
        **installation.secrets.process_environment("edge_proxy"),
        "TOLLWAY_EDGE_LISTEN": installation.ports.address("edge"),
        "TOLLWAY_EDGE_ADMIN_LISTEN": installation.ports.address("edge-admin"),
        "TOLLWAY_EDGE_WORKERS": str(installation.workers),
        "TOLLWAY_EDGE_DATA_DIR": str(installation.layout.edge),
        "TOLLWAY_KEY_PEPPERS": f"1:{installation.secrets.key_pepper}",
    }
    environment.setdefault("TOLLWAY_EDGE_DRAIN_SECONDS", str(EDGE_DRAIN_SECONDS))
    environment.setdefault("TOLLWAY_UPSTREAM_URL", installation.ports.url("upstream"))
    return Part(
        name="edge",
        command=[*PYTHON, "edge_proxy"],
        environment=environment,
        log_path=installation.layout.log("edge"),
        ready_url=f"{installation.ports.url('edge-admin')}/health/ready",
        sources=(*SHARED_SOURCES, "edge_proxy"),
    )
