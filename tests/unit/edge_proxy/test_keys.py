from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest
from tollway.auth.v1 import auth_service_pb2 as auth

from edge_proxy.keys import cache as key_cache
from edge_proxy.keys import snapshot
from edge_proxy.keys.cache import KeyCache, to_message
from edge_proxy.keys.grant import from_message
from edge_proxy.keys.resolve import AuthUnavailable, KeyResolver


def grant(number: int, **changes: object) -> auth.KeyGrant:
    values = {
        "digest": bytes([number]) * 32,
        "api_key_id": b"k" * 16,
        "organization_id": b"o" * 16,
        "mode": auth.KEY_MODE_LIVE,
        "state": auth.KEY_STATE_ACTIVE,
    }
    return auth.KeyGrant(**(values | changes))


def test_grant_round_trips():
    message = grant(1, scopes=["a", "b"], allowed_ips=["10.0.0.0/8", "::1/128"], external_subject="s", expire_time_us=9)
    assert to_message(from_message(message, fresh_until=0)) == message


@pytest.mark.parametrize(
    ("networks", "address", "allowed"),
    [
        ([], "1.2.3.4", True),
        (["10.0.0.0/8"], "10.1.2.3", True),
        (["10.0.0.0/8"], "::ffff:10.1.2.3", True),
        (["10.1.2.3"], "10.1.2.4", False),
        (["2001:db8::/32"], "2001:db8::1", True),
        (["nonsense"], "10.1.2.3", False),
        (["10.0.0.0/8"], "unknown", False),
    ],
)
def test_allowed_addresses(networks, address, allowed):
    assert from_message(grant(1, allowed_ips=networks), fresh_until=0).allows_address(address) is allowed


def test_snapshot_of_auth_forgets_what_was_not_in_it():
    cache = KeyCache()
    cache.put_stored([grant(1), grant(2)])
    cache.begin_snapshot()
    cache.put([grant(2), grant(3)], fresh_until=5.0)
    cache.end_snapshot()
    assert cache.get(grant(1).digest) is None
    assert cache.get(grant(2).digest).fresh_until == 5.0
    assert len(cache) == 2


def test_change_replaces_what_is_held():
    cache = KeyCache()
    cache.put([grant(1)], fresh_until=5.0)
    assert cache.get(grant(1).digest).state == auth.KEY_STATE_ACTIVE
    cache.put([grant(1, state=auth.KEY_STATE_REVOKED)], fresh_until=5.0)
    assert cache.get(grant(1).digest).state == auth.KEY_STATE_REVOKED


def test_unknown_digests_are_remembered_for_a_moment_and_bounded(monkeypatch):
    monkeypatch.setattr(key_cache, "UNKNOWN_MAX", 2)
    cache = KeyCache()
    cache.put_unknown([b"a", b"b", b"c"], 100.0)
    assert not cache.is_unknown(b"a", 100.0)
    assert cache.is_unknown(b"c", 109.0)
    assert not cache.is_unknown(b"c", 111.0)


def test_grants_are_bounded(monkeypatch):
    monkeypatch.setattr(key_cache, "GRANTS_MAX", 2)
    cache = KeyCache()
    cache.put([grant(1), grant(2), grant(3)], fresh_until=0.0)
    assert (len(cache), cache.get(grant(1).digest)) == (2, None)


def test_snapshot_on_disk_round_trips_and_damage_counts_as_none(tmp_path):
    path = tmp_path / "keys.snapshot"
    assert snapshot.read(path) is None
    snapshot.write(path, [grant(1), grant(2)])
    assert snapshot.read(path) == [grant(1), grant(2)]
    assert path.stat().st_mode & 0o777 == 0o600
    content = path.read_bytes()
    for damaged in (content[:-1], content[: len(content) // 2], b"", b"X" + content[1:]):
        path.write_bytes(damaged)
        assert snapshot.read(path) is None


class Auth:
    def __init__(self, *grants: auth.KeyGrant) -> None:
        self.grants = {item.digest: item for item in grants}
        self.calls: list[list[bytes]] = []
        self.is_down = False

    async def __call__(self, request: auth.ResolveKeysRequest, *, timeout: float) -> auth.ResolveKeysResponse:
        self.calls.append(list(request.digests))
        await asyncio.sleep(0)
        if self.is_down:
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
        return auth.ResolveKeysResponse(grants=[self.grants[d] for d in request.digests if d in self.grants])


async def test_questions_of_one_turn_share_a_call_and_each_digest_is_asked_once():
    service, cache = Auth(grant(1), grant(2)), KeyCache()
    resolver = KeyResolver(cache, service)
    digests = [grant(1).digest, grant(2).digest, grant(3).digest] * 5
    found = await asyncio.gather(*(resolver.find(digest) for digest in digests))
    assert [item is not None for item in found] == [True, True, False] * 5
    assert service.calls == [[grant(1).digest, grant(2).digest, grant(3).digest]]


async def test_old_grant_is_served_and_refreshed_in_the_background():
    service, cache = Auth(grant(1, state=auth.KEY_STATE_REVOKED)), KeyCache()
    cache.put_stored([grant(1)])
    resolver = KeyResolver(cache, service)
    assert resolver.held(grant(1).digest).state == auth.KEY_STATE_ACTIVE
    for _ in range(10):
        await asyncio.sleep(0)
    assert resolver.held(grant(1).digest).state == auth.KEY_STATE_REVOKED
    assert len(service.calls) == 1


async def test_without_auth_held_grants_live_on_and_others_cannot_be_told():
    service, cache = Auth(), KeyCache()
    service.is_down = True
    cache.put_stored([grant(1)])
    resolver = KeyResolver(cache, service)
    with pytest.raises(AuthUnavailable):
        await resolver.find(grant(2).digest)
    assert (await resolver.find(grant(1).digest)).api_key_id == b"k" * 16
    await asyncio.sleep(0.01)
    assert (await resolver.find(grant(1).digest)) is not None
    assert not resolver.is_available
