"""`envoy.service.auth.v3.Authorization/Check` over a real connection, without Envoy: every rule, and the cache."""

from __future__ import annotations

import asyncio
import hashlib
import json

import asyncpg
import grpc
import pytest
from tollway.auth.v1 import auth_service_pb2 as auth_pb
from tollway.auth.v1.auth_service_pb2 import KeyMode
from tollway.external.envoy.config.core.v3 import base_pb2
from tollway.external.envoy.service.auth.v3 import external_auth_pb2

from contract import key_format
from mesh.rpc.errors import from_grpc
from services.auth import store
from services.auth.key_changes import KeyChanges
from tests.support.accounts import seed_key, seed_organization, seed_service_account
from tests.support.machine_tokens import machine_token

KEY = key_format.mint(KeyMode.KEY_MODE_LIVE, b"k" * key_format.RANDOM_BYTES)
OTHER_KEY = key_format.mint(KeyMode.KEY_MODE_LIVE, b"o" * key_format.RANDOM_BYTES)
ADDRESS = "192.0.2.7"
WAIT_SECONDS = 20


@pytest.fixture
async def acme(auth):
    return await seed_organization(auth.database.dsn("auth_system"))


@pytest.fixture
async def gateway(auth, acme):
    """The credentials of Envoy."""
    token = machine_token("envoy")
    await seed_service_account(
        auth.database.dsn("auth_system"), acme.organization_id, token, "member", platform_role="platform_gateway"
    )
    return [("authorization", f"Bearer {token}")]


@pytest.fixture
async def key(auth, acme):
    key_id, _ = await seed_key(auth.database.dsn("auth_system"), acme.organization_id, acme.owner_id, KEY)
    return key_id


def shown(headers=None, *, address=ADDRESS, extensions=None, raw=()):
    request = external_auth_pb2.CheckRequest()
    request.attributes.source.address.socket_address.address = address
    request.attributes.request.http.headers.update(headers or {})
    request.attributes.request.http.header_map.headers.extend(
        base_pb2.HeaderValue(key=name, raw_value=value.encode()) for name, value in raw
    )
    request.attributes.context_extensions.update(extensions or {})
    return request


def bearer(key=KEY):
    return {"authorization": f"Bearer {key}"}


async def problem(auth, gateway, request):
    """What a request is refused with; empty where it passes."""
    answer = await auth.envoy.Check(request, metadata=gateway)
    if answer.WhichOneof("http_response") == "ok_response":
        return ""
    body = json.loads(answer.denied_response.body)
    assert body["status"] == answer.denied_response.status.code
    assert answer.status.code != 0
    return body["type"].removeprefix("/problems/")


async def change(auth, statement, *values):
    connection = await asyncpg.connect(auth.database.dsn("auth_system"))
    try:
        await connection.execute(statement, *values)
    finally:
        await connection.close()


async def until(holds):
    async with asyncio.timeout(WAIT_SECONDS):
        while not await holds():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("headers", [bearer(), {"authorization": f"bEARER  {KEY}"}, {"x-api-key": KEY}])
async def test_the_right_key_passes_and_the_upstream_is_told_who_calls(auth, acme, gateway, key, headers):
    claims = {
        "x-tollway-organization-id": "forged",
        "x-tollway-external-subject": "forged",
        "x_tollway_api_key_id": "forged",
        "x-user-id": "forged",
        "x-forwarded-host": "forged",
        "x-real-ip": "forged",
        "accept": "*/*",
        "x-request-id": "r",
        "x-forwarded-for": "192.0.2.9",
    }
    answer = await auth.envoy.Check(shown({**headers, **claims}), metadata=gateway)
    assert answer.status.code == grpc.StatusCode.OK.value[0]
    said = {option.header.key: option.header.value for option in answer.ok_response.headers}
    assert said == {"X-Tollway-Organization-Id": str(acme.organization_id), "X-Tollway-Api-Key-Id": str(key)}
    assert {option.append_action for option in answer.ok_response.headers} == {
        base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    }
    assert set(answer.ok_response.headers_to_remove) == {
        "authorization",
        "x-api-key",
        "x-tollway-external-subject",
        "x_tollway_api_key_id",
        "x-user-id",
        "x-forwarded-host",
        "x-real-ip",
    }
    assert dict(answer.dynamic_metadata) == {
        "organization_id": str(acme.organization_id),
        "api_key_id": str(key),
        "external_subject": "",
        "plan_id": "",
        "test_mode": False,
    }


@pytest.mark.parametrize(
    ("request_", "due"),
    [
        (shown({}), "key-missing"),
        (shown({"authorization": "Basic dTpw"}), "key-missing"),
        (shown({"authorization": ""}), "key-missing"),
        (shown(bearer(KEY[:-1] + "x")), "key-invalid"),
        (shown(bearer(KEY[:-1])), "key-invalid"),
        (shown({"x-api-key": ""}), "key-invalid"),
        (shown({"x-api-key": "é" * 72}), "key-invalid"),
        (shown(bearer(OTHER_KEY)), "key-invalid"),
        (shown({**bearer(), "x-api-key": KEY}), "bad-request"),
        (shown({"authorization": f"Bearer {KEY},Bearer {KEY}"}), "bad-request"),
        (shown({"x-api-key": f"{KEY},{KEY}"}), "bad-request"),
        (shown(raw=[("x-api-key", KEY), ("X-Api-Key", KEY)]), "bad-request"),
        (shown(raw=[("authorization", f"Bearer {KEY}")]), ""),
        (shown(bearer(), extensions={"scopes": "orders:read"}), "scope-missing"),
        (shown(bearer(), extensions={"scope": "orders:read"}), "internal"),
        (shown(bearer(), extensions={"trusted_hops": "-1"}), "internal"),
        (shown(bearer(), extensions={"trusted_hops": "11"}), "internal"),
    ],
)
async def test_what_a_request_shows_decides(auth, gateway, key, request_, due):
    request_.attributes.request.http.path = f"/orders?api_key={KEY}&access_token={KEY}"
    assert await problem(auth, gateway, request_) == due


async def test_scopes_and_addresses_are_those_of_the_key(auth, acme, gateway, key):
    await change(
        auth, "UPDATE api_keys SET scopes = '{orders:read,orders:write}', allowed_ips = '{192.0.2.0/24,2001:db8::/32}'"
    )
    both = {"scopes": "orders:read, orders:write"}

    async def told():
        return await problem(auth, gateway, shown(bearer(), extensions=both)) == ""

    await until(told)
    assert await problem(auth, gateway, shown(bearer(), extensions={"scopes": "orders:read admin"})) == "scope-missing"
    for address, due in {
        "192.0.2.255": "",
        "::ffff:192.0.2.1": "",
        "2001:db8::1": "",
        "192.0.3.1": "address-not-allowed",
        "2001:db9::1": "address-not-allowed",
        "": "address-not-allowed",
        "/run/socket": "address-not-allowed",
    }.items():
        assert (address, await problem(auth, gateway, shown(bearer(), address=address))) == (address, due)


async def test_behind_trusted_proxies_the_client_is_whom_they_name_and_nobody_else(auth, acme, gateway, key):
    await change(auth, "UPDATE api_keys SET allowed_ips = '{192.0.2.7}'")

    async def told():
        return await problem(auth, gateway, shown(bearer(), address="198.51.100.1")) == "address-not-allowed"

    await until(told)
    for forwarded, hops, due in [
        # The client, and the proxy that Envoy was called from.
        ("192.0.2.7, 10.0.0.1", "1", ""),
        ("192.0.2.7,10.0.0.2,10.0.0.1", "2", ""),
        # What stands further left the client wrote itself.
        ("192.0.2.7, 203.0.113.9, 10.0.0.1", "1", "address-not-allowed"),
        # Somebody came past the proxy.
        ("192.0.2.7", "1", "address-not-allowed"),
        ("", "1", "address-not-allowed"),
        # Nobody is trusted: the field is a claim.
        ("192.0.2.7, 10.0.0.1", "0", "address-not-allowed"),
    ]:
        request = shown(
            {**bearer(), "x-forwarded-for": forwarded}, address="10.0.0.1", extensions={"trusted_hops": hops}
        )
        assert (forwarded, hops, await problem(auth, gateway, request)) == (forwarded, hops, due)


@pytest.mark.parametrize(
    ("statement", "due"),
    [
        ("UPDATE api_keys SET revoke_time = now()", "key-invalid"),
        ("UPDATE api_keys SET expire_time = now() - interval '1 second'", "key-invalid"),
        ("UPDATE organizations SET state = 'suspended'", "organization-suspended"),
        ("UPDATE organizations SET suspended = true", "organization-suspended"),
    ],
)
async def test_a_change_is_in_force_within_a_second(auth, gateway, key, statement, due):
    assert await problem(auth, gateway, shown(bearer())) == ""
    await change(auth, statement)
    began = asyncio.get_running_loop().time()

    async def in_force():
        return await problem(auth, gateway, shown(bearer())) == due

    await until(in_force)
    assert asyncio.get_running_loop().time() - began < 1


async def test_a_new_key_passes_at_once_although_it_was_refused_before(auth, acme, gateway):
    assert await problem(auth, gateway, shown(bearer())) == "key-invalid"
    await seed_key(auth.database.dsn("auth_system"), acme.organization_id, acme.owner_id, KEY)

    async def passes():
        return await problem(auth, gateway, shown(bearer())) == ""

    await until(passes)


async def test_an_imported_key_passes_and_what_begins_otherwise_is_refused_without_asking(auth, acme, gateway):
    imported = "acme_live_0123456789"
    request = auth_pb.ImportApiKeysRequest(organization_id=str(acme.organization_id), idempotency_key="once")
    request.api_keys.add(
        sha256=hashlib.sha256(imported.encode()).digest(),
        key_prefix="acme_live_",
        name="from before",
        mode=KeyMode.KEY_MODE_LIVE,
    )
    await auth.stub.ImportApiKeys(request, metadata=auth.person(acme.owner_id, acme.organization_id))

    async def passes():
        return await problem(auth, gateway, shown(bearer(imported))) == ""

    await until(passes)
    for other in ("acme_live_0123456780", "acme_liv", "other_live_0123456789", "é"):
        assert await problem(auth, gateway, shown(bearer(other))) == "key-invalid"


async def test_a_check_costs_no_query(auth, gateway, key, monkeypatch):
    assert await problem(auth, gateway, shown(bearer())) == ""
    assert await problem(auth, gateway, shown(bearer(OTHER_KEY))) == "key-invalid"
    asked = []
    find = store.keys.find_grants

    async def count(tx, digests):
        asked.append(digests)
        return await find(tx, digests)

    monkeypatch.setattr(store.keys, "find_grants", count)
    for _ in range(50):
        assert await problem(auth, gateway, shown(bearer())) == ""
        assert await problem(auth, gateway, shown(bearer(OTHER_KEY))) == "key-invalid"
    for number in range(1_000):
        malformed = bearer(f"sk_live_{number:064x}")
        assert await problem(auth, gateway, shown(malformed)) in {"key-invalid", ""}
    # News of the seeds may come late, and then the key that nobody has is asked about once more.
    assert len(asked) <= 1


async def test_whoever_tries_keys_is_slowed_down_by_address_and_nobody_else_is(auth, gateway, key):
    def guess(number):
        return bearer(key_format.mint(KeyMode.KEY_MODE_LIVE, number.to_bytes(key_format.RANDOM_BYTES, "big")))

    guesses = [problem(auth, gateway, shown(guess(number), address="203.0.113.1")) for number in range(200)]
    found = await asyncio.gather(*guesses)
    assert found.count("too-many-unknown-keys") > 50
    assert await problem(auth, gateway, shown(guess(1_000), address="203.0.113.2")) == "key-invalid"
    assert await problem(auth, gateway, shown(bearer(), address="203.0.113.1")) == ""


async def test_while_nobody_says_what_changes_the_tables_are_asked(auth, gateway, key, monkeypatch):
    assert await problem(auth, gateway, shown(bearer())) == ""

    async def nothing(_changes, **_fields):
        await asyncio.Event().wait()
        yield (), False

    monkeypatch.setattr(KeyChanges, "watch", nothing)
    auth.key_changes._close_all("test")
    await until(lambda: asyncio.sleep(0, not auth.key_checks._known.is_told))
    await change(auth, "UPDATE api_keys SET revoke_time = now()")

    async def refused():
        return await problem(auth, gateway, shown(bearer())) == "key-invalid"

    await until(refused)


async def test_who_may_ask(auth, acme, key):
    dsn = auth.database.dsn("auth_system")
    tokens = {role: machine_token(str(role)) for role in (None, "platform_admin", "platform_support")}
    for role, token in tokens.items():
        await seed_service_account(dsn, acme.organization_id, token, "owner", platform_role=role)
    callers = [[("authorization", f"Bearer {token}")] for token in tokens.values()]
    callers += [auth.person(acme.owner_id, acme.organization_id), auth.process("edge_proxy")]
    for metadata in callers:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await auth.envoy.Check(shown(bearer()), metadata=metadata)
        assert from_grpc(refused.value).code is grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await auth.envoy.Check(shown(bearer()))
    assert from_grpc(refused.value).code is grpc.StatusCode.UNAUTHENTICATED


async def test_whatever_a_clients_request_holds_is_decided_and_not_an_error(auth, gateway, key):
    """An error of the RPC is decided by Envoy's failure mode, so a client must not be able to cause one."""
    odd = {**bearer(), "cookie": "x" * 60_000, "nul": "a\0b", "": "", "x-\u202e": "\U0001f4a3" * 4_000}
    request = shown(odd)
    request.attributes.request.http.path = "/" + "\0" * 20_000
    request.attributes.request.http.size = -1
    request.attributes.request.time.seconds = 2**62
    assert await problem(auth, gateway, request) == ""
    assert await problem(auth, gateway, external_auth_pb2.CheckRequest()) == "key-missing"


async def test_the_last_use_is_noted(auth, acme, gateway, key):
    assert await problem(auth, gateway, shown(bearer())) == ""
    await auth.key_checks.store_uses()
    connection = await asyncpg.connect(auth.database.dsn("auth_system"))
    assert await connection.fetchval("SELECT last_use_time FROM api_keys WHERE api_key_id = $1", key) is not None
    await connection.close()
