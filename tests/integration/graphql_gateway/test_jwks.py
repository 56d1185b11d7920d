"""The key set of session tokens for verifiers outside."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from graphql_gateway.rest import jwks
from mesh.clock import ManualClock
from mesh.rpc.tokens import read_jwks, read_session_token
from services.auth.signing_keys import PUBLISHED_SECONDS
from tests.integration.graphql_gateway.conftest import Backend, StartGateway


async def test_a_token_verifies_with_the_published_key_set(start_gateway: StartGateway, backend: Backend) -> None:
    gateway = await start_gateway(backend.address)
    async with gateway.session.get(f"{gateway.url}/.well-known/jwks.json") as response:
        assert (response.status, response.content_type) == (200, "application/jwk-set+json")
        assert response.headers["Cache-Control"] == f"public, max-age={jwks.MAX_AGE_SECONDS}"
        keys = read_jwks(await response.text())
    assert read_session_token(backend.token(), keys, datetime.now(UTC)).role == "owner"


def test_caches_forget_the_key_set_before_a_new_key_signs() -> None:
    assert jwks.MAX_AGE_SECONDS + jwks.FRESH_SECONDS < PUBLISHED_SECONDS


async def test_a_flood_asks_auth_once_and_the_last_set_outlives_auth(
    start_gateway: StartGateway, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, asked = ManualClock(datetime.now(UTC)), []
    gateway = await start_gateway(backend.address, monotonic=clock.monotonic)
    unary = jwks.Calls.unary

    async def count(*values: object) -> object:
        asked.append(True)
        return await unary(*values)  # type: ignore[arg-type]

    monkeypatch.setattr(jwks.Calls, "unary", count)

    async def get() -> tuple[int, str]:
        async with gateway.session.get(f"{gateway.url}/.well-known/jwks.json") as response:
            return response.status, await response.text()

    first = await get()
    assert [await get() for _ in range(20)] == [first] * 20
    assert len(asked) == 1
    await backend.server.stop(0)
    clock.advance(jwks.FRESH_SECONDS)
    assert await get() == first
    assert len(asked) == 2


async def test_without_auth_from_the_beginning_that_is_said(start_gateway: StartGateway) -> None:
    gateway = await start_gateway("127.0.0.1:1")
    async with gateway.session.get(f"{gateway.url}/.well-known/jwks.json") as response:
        assert response.status == 503
        assert (await response.json())["error"]["details"]["status"] == "UNAVAILABLE"
