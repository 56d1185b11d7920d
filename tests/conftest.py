"""Fixtures that every test may ask for. A server that cannot be had fails the test; nothing is skipped."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc.aio
import pytest
import redis as redis_client
from hypothesis import HealthCheck, Phase, settings

from tests.support.folders import open_folder
from tests.support.mutants import PROFILE
from tests.support.postgres import TestDatabase, TestPostgres, running_postgres
from tests.support.redis import running_redis

# gRPC ends its poller thread when the last channel or server is collected and starts another for the next one, and the
# thread that collects waits for that end. With a loop per test this happened every few tests, in whatever place the
# collector ran, and once a run hung there. One reference that is never given back keeps the thread for the whole run.
grpc.aio.init_grpc_aio()


# A property holds or not, however long an example takes on a busy machine.
settings.register_profile("tollway", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# For `make mutants`: that a property fails is enough there, and to look for its smallest example takes minutes.
settings.register_profile(
    "first-failure", settings.get_profile("tollway"), phases=[Phase.explicit, Phase.reuse, Phase.generate]
)
settings.load_profile(os.environ.get(PROFILE, "tollway"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[TestPostgres]:
    """The test process's PostgreSQL, with the migrated template database."""
    with open_folder("tests-postgres") as folder, running_postgres(folder) as server:
        yield server


@pytest.fixture
def stack_folder() -> Iterator[Path]:
    """An empty folder that a stack can live in; it does not exist yet."""
    with open_folder("tests-stack") as folder:
        yield folder / "var"


@pytest.fixture
async def database(postgres: TestPostgres) -> AsyncIterator[TestDatabase]:
    """A fresh, migrated database; `.dsn("owner" | "admin" | "<service>" | "<service>_system")`."""
    clone = await postgres.clone()
    yield clone
    await postgres.drop(clone)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The test process's Redis: its URL."""
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The URL of an empty Redis database."""
    with redis_client.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server
