"""A real Envoy with the configuration of `docs/envoy.md`, and auth behind it."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest
from tollway.auth.v1.auth_service_pb2 import KeyMode

from contract import key_format
from tests.support.accounts import seed_key, seed_organization, seed_service_account
from tests.support.envoy import running_envoy
from tests.support.machine_tokens import machine_token
from tests.support.running_auth import running_auth

pytestmark = pytest.mark.full

KEY = key_format.mint(KeyMode.KEY_MODE_LIVE, b"k" * key_format.RANDOM_BYTES)
OTHER_KEY = key_format.mint(KeyMode.KEY_MODE_LIVE, b"o" * key_format.RANDOM_BYTES)
TOKEN = machine_token("envoy")
WAIT_SECONDS = 20


@pytest.fixture
async def acme(auth):
    dsn = auth.database.dsn("auth_system")
    acme = await seed_organization(dsn)
    await seed_service_account(dsn, acme.organization_id, TOKEN, "member", platform_role="platform_gateway")
    return acme


@pytest.fixture
async def key(auth, acme):
    key_id, _ = await seed_key(auth.database.dsn("auth_system"), acme.organization_id, acme.owner_id, KEY)
    return key_id


@pytest.fixture
async def envoy(auth, key, tmp_path):
    async with running_envoy(tmp_path, auth_port=auth.port, token=TOKEN) as running:
        yield running


async def change(auth, statement):
    connection = await asyncpg.connect(auth.database.dsn("auth_system"))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def bearer(key=KEY):
    return {"Authorization": f"Bearer {key}"}


async def in_force_seconds(envoy, due, headers=None):
    """How long it takes until requests are answered so."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(WAIT_SECONDS):
        while await envoy.outcome(headers=headers or bearer()) != due:
            await asyncio.sleep(0.01)
    return loop.time() - began


@pytest.mark.parametrize("headers", [bearer(), {"x-api-key": KEY}])
async def test_the_upstream_is_told_who_calls_and_nothing_that_the_client_claims(envoy, acme, key, headers):
    claims = {
        "X-Tollway-Organization-Id": "forged",
        "X-Tollway-External-Subject": "forged",
        "X-User-Id": "forged",
        "Forwarded": "for=203.0.113.1",
        "X-Forwarded-Host": "forged",
        "X-Envoy-Original-Path": "/forged",
    }
    status, seen = await envoy.get("/a?b=c", headers={**headers, **claims, "Accept": "text/x"})
    assert status == 200
    assert seen["x-tollway-organization-id"] == str(acme.organization_id)
    assert seen["x-tollway-api-key-id"] == str(key)
    assert seen["accept"] == "text/x"
    assert "forged" not in json.dumps(seen)
    assert not {"authorization", "x-api-key", "forwarded", "x-tollway-external-subject"} & set(seen)
    assert KEY not in json.dumps(seen)


@pytest.mark.parametrize(
    ("headers", "due"),
    [
        ([], "key-missing"),
        ([("Authorization", "Basic dTpw")], "key-missing"),
        ([("Authorization", f"Bearer {OTHER_KEY}")], "key-invalid"),
        ([("Authorization", f"Bearer {KEY[:-1]}")], "key-invalid"),
        ([("Authorization", f"Bearer {KEY}"), ("X-Api-Key", KEY)], "bad-request"),
        ([("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {KEY}")], "bad-request"),
        ([("X-Api-Key", KEY), ("X-Api-Key", KEY)], "bad-request"),
    ],
)
async def test_what_a_request_shows_decides(envoy, headers, due):
    assert await envoy.outcome(f"/?api_key={KEY}", headers=headers) == due
    assert envoy.upstream.requests == []


async def test_a_route_says_which_scopes_it_needs_or_that_it_needs_no_key(auth, envoy):
    assert await envoy.outcome("/orders/1", headers=bearer()) == "scope-missing"
    for path in ("/x/../orders/1", "/x/%2e%2e/orders/1", "//orders/1"):
        assert await envoy.outcome(path, headers=bearer()) == "scope-missing", path
    await change(auth, "UPDATE api_keys SET scopes = '{orders:read}'")
    async with asyncio.timeout(WAIT_SECONDS):
        while await envoy.outcome("/orders/1", headers=bearer()):
            await asyncio.sleep(0.01)
    status, seen = await envoy.get("/health", headers={"X-Tollway-Organization-Id": "forged", "X-Api-Key": KEY})
    assert status == 200
    assert not {"x-tollway-organization-id", "x-api-key"} & set(seen)


@pytest.mark.parametrize(
    ("statement", "due"),
    [
        ("UPDATE api_keys SET revoke_time = now()", "key-invalid"),
        ("UPDATE api_keys SET expire_time = now() - interval '1 second'", "key-invalid"),
        ("UPDATE api_keys SET allowed_ips = '{192.0.2.0/24}'", "address-not-allowed"),
        ("UPDATE organizations SET state = 'suspended'", "organization-suspended"),
    ],
)
async def test_a_change_is_in_force_within_a_second(auth, envoy, statement, due):
    assert await envoy.outcome(headers=bearer()) == ""
    await change(auth, statement)
    assert await in_force_seconds(envoy, due) < 1


async def test_the_address_is_the_peers_and_no_header_changes_it(auth, key, tmp_path):
    await change(auth, "UPDATE api_keys SET allowed_ips = '{127.0.0.1}'")
    folder = tmp_path / "alone"
    folder.mkdir()
    claim = {**bearer(), "X-Forwarded-For": "203.0.113.9", "X-Real-Ip": "203.0.113.9"}

    def trust(text):
        return text.replace(
            "use_remote_address: true", "use_remote_address: true\n                xff_num_trusted_hops: 1"
        )

    for edit in (None, trust):
        async with running_envoy(folder, auth_port=auth.port, token=TOKEN, edit=edit) as envoy:
            assert await envoy.outcome(headers=claim) == ""

    def hops(text):
        return text.replace('{scopes: "orders:read"}', '{trusted_hops: "1"}')

    async with running_envoy(folder, auth_port=auth.port, token=TOKEN, edit=hops) as envoy:
        assert await envoy.outcome("/orders", headers=claim) == "address-not-allowed"
        behind = {**bearer(), "X-Forwarded-For": "203.0.113.9, 127.0.0.1"}
        assert await envoy.outcome("/orders", headers=behind) == ""
        assert await envoy.outcome("/orders", headers=bearer()) == "address-not-allowed"


async def test_a_misspelt_extension_opens_nothing(auth, key, tmp_path):
    def misspell(text):
        return text.replace("context_extensions: {scopes:", "context_extensions: {scope:")

    async with running_envoy(tmp_path, auth_port=auth.port, token=TOKEN, edit=misspell) as envoy:
        assert await envoy.outcome("/orders", headers=bearer()) == "internal"


async def test_a_gateway_that_auth_does_not_know_lets_nobody_pass(auth, key, tmp_path):
    async with running_envoy(tmp_path, auth_port=auth.port, token=machine_token("stranger")) as envoy:
        async with envoy.session.get(envoy.url, headers=bearer()) as answer:
            assert answer.status == 503
        async with envoy.session.get(f"{envoy.url}/health") as answer:
            assert answer.status == 200


async def test_without_auth_nobody_passes_but_where_no_key_is_needed(database, tmp_path):
    async with running_auth(database) as auth:
        dsn = database.dsn("auth_system")
        acme = await seed_organization(dsn)
        await seed_service_account(dsn, acme.organization_id, TOKEN, "member", platform_role="platform_gateway")
        await seed_key(dsn, acme.organization_id, acme.owner_id, KEY)
        context = running_envoy(tmp_path, auth_port=auth.port, token=TOKEN)
        envoy = await context.__aenter__()
        assert await envoy.outcome(headers=bearer()) == ""
    try:
        for _ in range(5):
            async with envoy.session.get(envoy.url, headers=bearer()) as answer:
                assert answer.status == 503
        async with envoy.session.get(f"{envoy.url}/health") as answer:
            assert answer.status == 200
    finally:
        await context.__aexit__(None, None, None)


async def test_clients_cannot_make_the_check_fail(envoy):
    """What fails is decided by the failure mode, so a request that auth might stumble over has to be decided."""
    odd = {**bearer(), "Cookie": "x" * 20_000, "X-Odd": "é\u00ff", "X-Long": "y" * 9_000}
    assert await envoy.outcome("/" + "z" * 9_000, headers=odd) == ""
