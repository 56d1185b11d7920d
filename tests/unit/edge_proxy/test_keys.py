from __future__ import annotations

import asyncio
import struct
import zlib

import grpc
import grpc.aio
import pytest
from tollway.auth.v1 import auth_service_pb2 as auth

from contract.key_prefixes import Prefixes
from edge_proxy.keys import cache as key_cache
from edge_proxy.keys import snapshot
from edge_proxy.keys import uses as key_uses
from edge_proxy.keys.cache import GRANT_SECONDS, REFRESH_AFTER_SECONDS, KeyCache
from edge_proxy.keys.grant import from_message
from edge_proxy.keys.resolve import AuthUnavailable, KeyResolver
from edge_proxy.keys.snapshot import Snapshot
from edge_proxy.keys.uses import NOTE_SECONDS, KeyUses


async def nothing(request: auth.ReportKeyUsesRequest, *, timeout: float) -> auth.ReportKeyUsesResponse:
    return auth.ReportKeyUsesResponse()


def grant(number: int, **changes: object) -> auth.KeyGrant:
    values = {
        "digest": bytes([number]) * 32,
        "api_key_id": b"k" * 16,
        "organization_id": b"o" * 16,
        "mode": auth.KEY_MODE_LIVE,
        "state": auth.KEY_STATE_ACTIVE,
    }
    return auth.KeyGrant(**(values | changes))


def test_a_grant_that_was_used_is_written_as_auth_sent_it():
    message = grant(1, scopes=["b", "a"], allowed_ips=["nonsense", "::1/128"], expire_time_us=9, version=3)
    cache = KeyCache()
    cache.push([message], fresh_until=5.0)
    assert cache.get(message.digest).scopes == {"a", "b"}
    assert cache.messages() == [message]


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
    cache.put_stored([grant(1), grant(2)], now=0.0)
    cache.begin_snapshot()
    cache.push([grant(2), grant(3)], fresh_until=5.0)
    cache.end_snapshot()
    assert cache.get(grant(1).digest) is None
    assert cache.get(grant(2).digest).fresh_until == 5.0
    assert len(cache) == 2


def test_change_replaces_what_is_held():
    cache = KeyCache()
    cache.push([grant(1)], fresh_until=5.0)
    assert cache.get(grant(1).digest).state == auth.KEY_STATE_ACTIVE
    cache.push([grant(1, state=auth.KEY_STATE_REVOKED)], fresh_until=5.0)
    assert cache.get(grant(1).digest).state == auth.KEY_STATE_REVOKED


@pytest.mark.parametrize("older_comes_by", ["push", "put"])
def test_a_grant_never_replaces_one_with_a_higher_version(older_comes_by):
    cache = KeyCache()
    cache.push([grant(1, state=auth.KEY_STATE_REVOKED, version=5)], fresh_until=5.0)
    getattr(cache, older_comes_by)([grant(1, version=4)], fresh_until=9.0)
    assert cache.get(grant(1).digest).state == auth.KEY_STATE_REVOKED
    assert [message.version for message in cache.take_unsaved()] == [5]


def test_an_answer_does_not_stand_for_the_snapshot_under_way():
    cache = KeyCache()
    cache.begin_snapshot()
    cache.put([grant(1)], fresh_until=5.0)
    cache.end_snapshot()
    assert cache.get(grant(1).digest) is None


def test_what_restricts_waits_to_be_saved_and_a_first_snapshot_does_not():
    cache = KeyCache()
    cache.begin_snapshot()
    cache.push([grant(1), grant(2), grant(3, state=auth.KEY_STATE_ORGANIZATION_SUSPENDED)], fresh_until=5.0)
    cache.end_snapshot()
    assert [message.digest for message in cache.take_unsaved()] == [grant(3).digest]
    assert not cache.save_needed.is_set()
    cache.push([grant(4)], fresh_until=5.0)
    cache.put([grant(5)], fresh_until=5.0)
    cache.push([grant(1, scopes=["less"], version=1)], fresh_until=5.0)
    assert cache.save_needed.is_set()
    assert [message.digest for message in cache.take_unsaved()] == [grant(4).digest, grant(1).digest]
    cache.begin_snapshot()
    cache.push([grant(1, version=2), grant(4)], fresh_until=5.0)
    cache.end_snapshot()
    saved = {message.digest: message.state for message in cache.take_unsaved()}
    assert saved == {
        grant(1).digest: auth.KEY_STATE_ACTIVE,
        **dict.fromkeys([grant(n).digest for n in (2, 3, 5)], auth.KEY_STATE_UNSPECIFIED),
    }


def test_unsaved_changes_are_bounded_by_a_snapshot(monkeypatch):
    monkeypatch.setattr(key_cache, "UNSAVED_MAX", 2)
    cache = KeyCache()
    cache.push([grant(number) for number in range(1, 4)], fresh_until=5.0)
    assert (len(cache.unsaved), cache.snapshot_wanted) == (2, True)
    changes = cache.take_unsaved()
    cache.push([grant(1, version=9)], fresh_until=5.0)
    cache.give_unsaved_back(changes)
    assert [message.version for message in cache.take_unsaved()] == [9, 0]


def test_unknown_digests_are_remembered_for_a_moment_and_bounded(monkeypatch):
    monkeypatch.setattr(key_cache, "REFUSED_MAX", 2)
    cache = KeyCache()
    cache.put_unknown([b"a", b"b", b"c"], 100.0)
    assert not cache.is_refused(b"a", 100.0)
    assert cache.is_refused(b"c", 109.0)
    assert not cache.is_refused(b"c", 111.0)


def test_grants_are_bounded(monkeypatch):
    monkeypatch.setattr(key_cache, "GRANTS_MAX", 2)
    cache = KeyCache()
    cache.push([grant(1), grant(2), grant(3)], fresh_until=0.0)
    assert (len(cache), cache.get(grant(1).digest)) == (2, None)


def test_snapshot_on_disk_round_trips_and_damage_counts_as_none(tmp_path):
    path = tmp_path / "keys.snapshot"
    assert snapshot.read(path) is None
    snapshot.write(path, Snapshot(grants=[grant(1), grant(2)], prefixes=("acme_", "old-")))
    assert snapshot.read(path) == Snapshot(grants=[grant(1), grant(2)], prefixes=("acme_", "old-"))
    assert path.stat().st_mode & 0o777 == 0o600
    content = path.read_bytes()
    for damaged in (content[:-1], content[: len(content) // 2], b"", b"X" + content[1:]):
        path.write_bytes(damaged)
        assert snapshot.read(path) is None


def test_a_snapshot_of_the_version_before_is_read(tmp_path):
    path = tmp_path / "keys.snapshot"
    old = auth.KeyGrant(digest=b"d" * 32, version=4, scopes=["read"])
    body = snapshot.MAGIC_1 + struct.pack("<I", old.ByteSize()) + old.SerializeToString()
    path.write_bytes(body + struct.pack("<I", zlib.crc32(body)))
    assert snapshot.read(path) == Snapshot(grants=[old])
    newer = body.replace(snapshot.MAGIC_1, snapshot.MAGIC_1[:-1] + b"\x03")
    path.write_bytes(newer + struct.pack("<I", zlib.crc32(newer)))
    assert snapshot.read(path) is None


def test_only_what_begins_as_an_imported_key_is_looked_at():
    prefixes = Prefixes(["acme_", "acme_live_", "x-1-", ""])
    assert [prefixes.begin(key) for key in (b"acme_", b"acme_1", b"x-1-9", b"acme_live_1")] == [True] * 4
    wrong = (b"", b"acme", b"Acme_1", b" acme_1", b"x-1", b"y", b"\xff\xfe\x00")
    assert [prefixes.begin(key) for key in wrong] == [False] * len(wrong)
    assert not Prefixes().begin(b"acme_1")


def test_stored_grants_tell_how_imported_keys_begin_where_the_file_does_not():
    cache = KeyCache()
    cache.put_stored([grant(1, key_prefix="acme_"), grant(2)], ("old-",), now=0.0)
    assert cache.prefixes.listed == ("acme_", "old-")
    cache.put_prefixes(["new-"])
    assert cache.prefixes.listed == ("new-",)


class Uses:
    def __init__(self) -> None:
        self.reported: list[dict[bytes, int]] = []
        self.is_down = False

    async def __call__(self, request: auth.ReportKeyUsesRequest, *, timeout: float) -> auth.ReportKeyUsesResponse:
        if self.is_down:
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
        self.reported.append({use.api_key_id: use.age_seconds for use in request.uses})
        return auth.ReportKeyUsesResponse()


async def test_a_key_in_use_is_noted_at_first_and_then_now_and_then(monkeypatch):
    service, cache, said = Auth(), KeyCache(), Uses()
    uses = KeyUses(said)
    resolver = KeyResolver(cache, service, uses)
    cache.push([grant(1), grant(2, api_key_id=b"unused" + bytes(10))], fresh_until=now() + REFRESH_AFTER_SECONDS)
    for _ in range(3):
        assert resolver.held(grant(1).digest) is not None
    await uses.report()
    assert said.reported == [{b"k" * 16: 0}]
    resolver.held(grant(1).digest)
    assert len(uses) == 0
    cache.get(grant(1).digest).look_after = now()
    resolver.held(grant(1).digest)
    assert len(uses) == 1
    assert NOTE_SECONDS - 1 < cache.get(grant(1).digest).look_after - now() <= NOTE_SECONDS
    assert service.calls == []


async def test_a_key_that_was_asked_for_and_used_once_is_noted():
    said = Uses()
    uses = KeyUses(said)
    resolver = KeyResolver(KeyCache(), Auth(grant(1)), uses)
    assert await resolver.find(grant(1).digest) is not None
    assert await resolver.find(grant(2).digest) is None
    await uses.report()
    assert said.reported == [{b"k" * 16: 0}]


async def test_uses_that_auth_does_not_take_are_kept_and_a_later_use_stands(monkeypatch):
    said = Uses()
    uses = KeyUses(said)
    clock = 1000.0
    monkeypatch.setattr(key_uses.time, "monotonic", lambda: clock)
    monkeypatch.setattr(key_uses, "USES_PER_REPORT_MAX", 2)
    for number in (1, 2, 3):
        uses.note(from_message(grant(number, api_key_id=bytes([number]) * 16), fresh_until=0.0))
    said.is_down = True
    await uses.report()
    assert (len(uses), said.reported) == (3, [])
    clock = 1600.0
    uses.note(from_message(grant(3, api_key_id=bytes([3]) * 16), fresh_until=0.0))
    said.is_down = False
    await uses.report()
    assert said.reported == [{bytes([1]) * 16: 600, bytes([2]) * 16: 600}, {bytes([3]) * 16: 0}]
    assert len(uses) == 0


def now() -> float:
    return asyncio.get_running_loop().time()


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
    resolver = KeyResolver(cache, service, KeyUses(nothing))
    digests = [grant(1).digest, grant(2).digest, grant(3).digest] * 5
    found = await asyncio.gather(*(resolver.find(digest) for digest in digests))
    assert [item is not None for item in found] == [True, True, False] * 5
    assert service.calls == [[grant(1).digest, grant(2).digest, grant(3).digest]]


async def test_old_grant_is_served_and_refreshed_in_the_background():
    service, cache = Auth(grant(1, state=auth.KEY_STATE_REVOKED)), KeyCache()
    cache.put_stored([grant(1)], now=now() - 1.0)
    resolver = KeyResolver(cache, service, KeyUses(nothing))
    assert resolver.held(grant(1).digest).state == auth.KEY_STATE_ACTIVE
    for _ in range(10):
        await asyncio.sleep(0)
    assert resolver.held(grant(1).digest) is None
    assert len(service.calls) == 1


async def test_a_grant_past_its_time_waits_for_auth_and_serves_on_where_auth_is_away():
    service, cache = Auth(grant(1, state=auth.KEY_STATE_REVOKED)), KeyCache()
    overdue = now() - (GRANT_SECONDS - REFRESH_AFTER_SECONDS) - 1.0
    cache.put_stored([grant(1), grant(2)], now=overdue)
    resolver = KeyResolver(cache, service, KeyUses(nothing))
    assert resolver.held(grant(1).digest) is None
    assert await resolver.find(grant(1).digest) is None
    service.is_down = True
    assert (await resolver.find(grant(2).digest)).digest == grant(2).digest
    assert resolver.held(grant(2).digest) is not None


async def test_a_revoked_key_takes_the_way_of_an_unknown_one():
    service, cache = Auth(grant(1, state=auth.KEY_STATE_REVOKED)), KeyCache()
    cache.push([grant(1, state=auth.KEY_STATE_REVOKED)], fresh_until=now() + 100)
    resolver = KeyResolver(cache, service, KeyUses(nothing))
    for digest in (grant(1).digest, grant(2).digest):
        assert resolver.held(digest) is None
        assert [await resolver.find(digest) for _ in range(3)] == [None] * 3
    assert service.calls == [[grant(1).digest], [grant(2).digest]]
    service.is_down = True
    cache.push([grant(1, state=auth.KEY_STATE_REVOKED, version=2)], fresh_until=now() + 100)
    assert await resolver.find(grant(1).digest) is None


class SlowAuth(Auth):
    """Reads at once and answers when told to."""

    def __init__(self, *grants: auth.KeyGrant) -> None:
        super().__init__(*grants)
        self.may_answer = asyncio.Event()

    async def __call__(self, request: auth.ResolveKeysRequest, *, timeout: float) -> auth.ResolveKeysResponse:
        answer = await super().__call__(request, timeout=timeout)
        await self.may_answer.wait()
        return answer


async def find_while(service: SlowAuth, cache: KeyCache, digest: bytes, meanwhile) -> object:
    finding = asyncio.create_task(KeyResolver(cache, service, KeyUses(nothing)).find(digest))
    while not service.calls:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    meanwhile()
    service.may_answer.set()
    return await finding


async def test_an_older_answer_does_not_undo_a_pushed_revocation():
    service, cache = SlowAuth(grant(1, version=1)), KeyCache()
    revoked = grant(1, state=auth.KEY_STATE_REVOKED, version=2)
    found = await find_while(service, cache, grant(1).digest, lambda: cache.push([revoked], fresh_until=now() + 100))
    assert found is None
    assert cache.get(grant(1).digest).state == auth.KEY_STATE_REVOKED


async def test_an_answer_that_a_snapshot_overtook_is_asked_for_again():
    service, cache = SlowAuth(grant(1, version=1)), KeyCache()

    def snapshot_without_the_key() -> None:
        service.grants.clear()
        cache.begin_snapshot()
        cache.end_snapshot()

    assert await find_while(service, cache, grant(1).digest, snapshot_without_the_key) is None
    assert len(service.calls) == 2


async def test_an_older_unknown_does_not_undo_a_pushed_key():
    service, cache = SlowAuth(), KeyCache()
    found = await find_while(service, cache, grant(1).digest, lambda: cache.push([grant(1)], fresh_until=now() + 100))
    assert found is cache.get(grant(1).digest)
    assert not cache.is_refused(grant(1).digest, now())


async def test_without_auth_held_grants_live_on_and_others_cannot_be_told():
    service, cache = Auth(), KeyCache()
    service.is_down = True
    cache.put_stored([grant(1)], now=now() - 1.0)
    resolver = KeyResolver(cache, service, KeyUses(nothing))
    with pytest.raises(AuthUnavailable):
        await resolver.find(grant(2).digest)
    assert (await resolver.find(grant(1).digest)).api_key_id == b"k" * 16
    for _ in range(10):
        await asyncio.sleep(0)
    assert (await resolver.find(grant(1).digest)) is not None
    assert not resolver.is_available
