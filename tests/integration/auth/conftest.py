"""The auth server of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.postgres import TestDatabase
from tests.support.running_auth import RunningAuth, running_auth


@pytest.fixture
async def auth(database: TestDatabase) -> AsyncIterator[RunningAuth]:
    """A running auth service with its database."""
    async with running_auth(database) as running:
        yield running
