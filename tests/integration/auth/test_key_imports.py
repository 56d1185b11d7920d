"""Keys from another system are known by their SHA-256; edges learn what they begin with."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import grpc
import pytest
from google.protobuf import timestamp_pb2
from tollway.auth.v1 import auth_service_pb2 as pb

from contract import key_format
from services.auth import key_imports
from services.auth.key_limits import KeyLimits
from tests.support.accounts import PEPPER, SeededOrganization, seed_key, seed_organization, seed_person
from tests.support.key_calls import in_future, owner_of, refusal, resolve, rotate_request
from tests.support.postgres import TestDatabase
from tests.support.running_auth import running_auth

EDGE = "edge_proxy"


@pytest.fixture
async def acme(auth: Any) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"), "acme")


@pytest.fixture
async def other(auth: Any) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"), "other")


def sha256(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def digest(key: str) -> bytes:
    return key_format.imported_digest(sha256(key), PEPPER)


def imported(key: str, **fields: Any) -> pb.ImportedApiKey:
    return pb.ImportedApiKey(**{"sha256": sha256(key), "key_prefix": "acme_", "name": "old", **fields})


def import_request(organization: SeededOrganization, *keys: pb.ImportedApiKey, **fields: Any) -> Any:
    return pb.ImportApiKeysRequest(organization_id=str(organization.organization_id), api_keys=keys, **fields)


async def count(auth: Any, table: str) -> int:
    async with auth.db.system() as tx:
        return int(await tx.fetchval(f"SELECT count(*) FROM {table}"))


async def test_an_imported_key_resolves_by_what_the_edge_computes_and_nothing_tells_the_key(
    auth: Any, acme: SeededOrganization
) -> None:
    expire_time = in_future(hours=1)
    request = import_request(
        acme,
        imported("acme_one", mode=pb.KEY_MODE_TEST, scopes=["read"], external_subject="u", expire_time=expire_time),
        imported("acme_two", allowed_ips=["192.0.2.0/24"], key_prefix="acme_two"),
    )
    answer = await auth.stub.ImportApiKeys(request, metadata=owner_of(auth, acme))
    assert [key.key_prefix for key in answer.api_keys] == ["acme_", "acme_two"]
    assert [key.hint for key in answer.api_keys] == ["acme_…", "acme_two…"]
    one, two = [await resolve(auth, digest(key)) for key in ("acme_one", "acme_two")]
    assert (one.api_key_id, one.mode, list(one.scopes), one.external_subject, one.key_prefix) == (
        UUID(answer.api_keys[0].api_key_id).bytes,
        pb.KEY_MODE_TEST,
        ["read"],
        "u",
        "acme_",
    )
    assert one.expire_time_us == expire_time.ToMicroseconds()
    assert list(two.allowed_ips) == ["192.0.2.0/24"]
    got = await auth.stub.GetApiKey(
        pb.GetApiKeyRequest(organization_id=str(acme.organization_id), api_key_id=answer.api_keys[1].api_key_id),
        metadata=owner_of(auth, acme),
    )
    assert got == answer.api_keys[1]
    async with auth.db.system() as tx:
        stored = await tx.fetch("SELECT k::text AS row FROM api_keys AS k")
    assert all(sha256("acme_one").hex() not in row["row"] for row in stored)
    log = await auth.stub.ListAuditEntries(
        pb.ListAuditEntriesRequest(organization_id=str(acme.organization_id)), metadata=owner_of(auth, acme)
    )
    assert [(entry.action, entry.resource) for entry in log.audit_entries[::-1]] == [
        ("api_key.import", f"api_key/{key.api_key_id}") for key in answer.api_keys
    ]
    async with auth.db.system() as tx:
        (job,) = await tx.fetch("SELECT payload FROM jobs")
    assert '"count": "2"' in job["payload"]


async def test_a_thousand_keys_are_imported_at_once(auth: Any, acme: SeededOrganization) -> None:
    request = import_request(acme, *(imported(f"acme_{number}") for number in range(1_000)), idempotency_key="k")
    answers = [await auth.stub.ImportApiKeys(request, metadata=owner_of(auth, acme)) for _ in range(2)]
    assert len(answers[0].api_keys) == 1_000
    assert answers[1] == answers[0]
    assert (await count(auth, "api_keys"), await count(auth, "audit_entries"), await count(auth, "jobs")) == (
        1_000,
        1_000,
        1,
    )


async def test_a_key_that_is_here_already_keeps_all_others_out_and_is_named(
    auth: Any, acme: SeededOrganization, other: SeededOrganization
) -> None:
    await auth.stub.ImportApiKeys(import_request(other, imported("acme_2")), metadata=owner_of(auth, other))
    request = import_request(acme, *(imported(f"acme_{number}") for number in range(5)), idempotency_key="k")
    refused = await refusal(auth.stub.ImportApiKeys(request, metadata=owner_of(auth, acme)))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "API_KEY_EXISTS")
    assert [violation.field for violation in refused.violations] == ["api_keys[2].sha256"]
    assert await count(auth, "api_keys") == 1
    assert await count(auth, "idempotency_keys") == 0


async def test_a_key_that_comes_twice_is_named_with_both_places(auth: Any, acme: SeededOrganization) -> None:
    request = import_request(acme, *(imported(key) for key in ("acme_1", "acme_2", "acme_1")))
    refused = await refusal(auth.stub.ImportApiKeys(request, metadata=owner_of(auth, acme)))
    (violation,) = refused.violations
    assert (violation.field, violation.description) == ("api_keys[2].sha256", "must not be that of api_keys[0]")


@pytest.mark.parametrize("prefix", ["abc", "x" * 21, "sk_live_", "SK_x", "tw_sa_", "acm e", "acmé_", "", "acme\n"])
async def test_a_beginning_is_four_to_twenty_visible_characters_and_not_ours(
    auth: Any, acme: SeededOrganization, prefix: str
) -> None:
    request = import_request(acme, imported("acme_1", key_prefix=prefix))
    refused = await refusal(auth.stub.ImportApiKeys(request, metadata=owner_of(auth, acme)))
    assert {violation.field for violation in refused.violations} == {"api_keys[0].key_prefix"}


async def test_everything_wrong_is_told_at_once_but_no_more_than_fits(auth: Any, acme: SeededOrganization) -> None:
    wrong = imported(
        "x",
        sha256=b"short",
        name="",
        scopes=["a b"],
        allowed_ips=["nowhere"],
        expire_time=timestamp_pb2.Timestamp(seconds=1),
    )
    refused = await refusal(auth.stub.ImportApiKeys(import_request(acme, wrong), metadata=owner_of(auth, acme)))
    assert {violation.field for violation in refused.violations} == {
        "api_keys[0].sha256",
        "api_keys[0].name",
        "api_keys[0].scopes[0]",
        "api_keys[0].allowed_ips[0]",
        "api_keys[0].expire_time",
    }
    request = import_request(acme, *([wrong] * 1_000))
    refused = await refusal(auth.stub.ImportApiKeys(request, metadata=owner_of(auth, acme)))
    assert refused.reason == "INVALID_FIELDS"
    for keys in ([], [imported(str(number)) for number in range(1_001)]):
        refused = await refusal(auth.stub.ImportApiKeys(import_request(acme, *keys), metadata=owner_of(auth, acme)))
        assert [violation.field for violation in refused.violations] == ["api_keys"]


async def test_members_import_nothing_and_nobody_gives_what_is_not_theirs(auth: Any, acme: SeededOrganization) -> None:
    dsn = auth.database.dsn("auth_system")
    member_id = await seed_person(dsn, acme.organization_id, "m@acme.example", "member")
    request = import_request(acme, imported("acme_1"))
    member = auth.person(member_id, acme.organization_id, "member")
    assert (await refusal(auth.stub.ImportApiKeys(request, metadata=member))).reason == "ROLE_INSUFFICIENT"
    reserved = import_request(acme, imported("acme_1"), imported("acme_2", scopes=["tollway:root"]))
    refused = await refusal(auth.stub.ImportApiKeys(reserved, metadata=owner_of(auth, acme)))
    assert [violation.field for violation in refused.violations] == ["api_keys[1].scopes[0]"]
    given = import_request(acme, imported("acme_1", scopes=["events:write"]))
    assert (await auth.stub.ImportApiKeys(given, metadata=owner_of(auth, acme))).api_keys


async def test_imported_keys_count_towards_the_limit(database: TestDatabase) -> None:
    async with running_auth(database, limits=KeyLimits(per_organization_max=3, per_person_and_minute_max=1)) as auth:
        acme = await seed_organization(database.dsn("auth_system"), "acme")
        await seed_key(database.dsn("auth_system"), acme.organization_id, acme.owner_id)
        for numbers, reason in (
            (range(3), "API_KEY_LIMIT_REACHED"),
            (range(2), ""),
            (range(2, 3), "API_KEY_LIMIT_REACHED"),
        ):
            call = auth.stub.ImportApiKeys(
                import_request(acme, *(imported(f"acme_{number}") for number in numbers)),
                metadata=owner_of(auth, acme),
            )
            assert ((await refusal(call)).reason if reason else (await call) and "") == reason


async def test_beginnings_are_bounded_per_organization_and_in_the_installation(
    auth: Any, acme: SeededOrganization, other: SeededOrganization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_imports, "PREFIXES_PER_ORGANIZATION_MAX", 2)
    monkeypatch.setattr(key_imports, "PREFIXES_MAX", 3)

    async def try_import(organization: SeededOrganization, *prefixes: str) -> str:
        keys = [imported(f"{organization.organization_id} {prefix}", key_prefix=prefix) for prefix in prefixes]
        try:
            await auth.stub.ImportApiKeys(import_request(organization, *keys), metadata=owner_of(auth, organization))
        except grpc.aio.AioRpcError as error:
            return str(error.details())
        return ""

    too_many = key_imports.KeyPrefixLimitReached.public_message()
    assert await try_import(acme, "aaaa", "bbbb", "cccc") == too_many
    assert await try_import(acme, "aaaa", "bbbb") == ""
    assert await try_import(acme, "dddd") == too_many
    assert await try_import(other, "eeee", "ffff") == too_many
    assert await try_import(other, "aaaa", "eeee") == ""


async def test_an_imported_key_is_rotated_into_one_of_ours(auth: Any, acme: SeededOrganization) -> None:
    answer = await auth.stub.ImportApiKeys(
        import_request(acme, imported("acme_1", scopes=["read"])), metadata=owner_of(auth, acme)
    )
    new = await auth.stub.RotateApiKey(
        rotate_request(acme, answer.api_keys[0].api_key_id, timedelta(hours=1)), metadata=owner_of(auth, acme)
    )
    assert key_format.parse(new.secret) == pb.KEY_MODE_LIVE
    assert (new.api_key.key_prefix, list(new.api_key.scopes)) == ("", ["read"])
    assert (await resolve(auth, digest("acme_1"))).expire_time_us > 0


async def test_every_stream_learns_how_imported_keys_begin_before_or_with_their_grants(
    auth: Any, acme: SeededOrganization
) -> None:
    async def open_watch() -> Any:
        async with asyncio.timeout(60):
            while not auth.key_changes.is_listening:
                await asyncio.sleep(0.01)
        return auth.stub.WatchKeys(pb.WatchKeysRequest(), metadata=auth.process(EDGE))

    async def read_until(call: Any, is_it: Any) -> list[pb.WatchKeysResponse]:
        read = []
        async with asyncio.timeout(60):
            while not read or not is_it(read[-1]):
                read.append(await call.read())
        return read

    def prefixes(read: list[pb.WatchKeysResponse]) -> list[list[str]]:
        return [list(each.imported_prefixes.prefixes) for each in read if each.HasField("imported_prefixes")]

    early = await open_watch()
    assert prefixes(await read_until(early, lambda each: each.snapshot_complete)) == [[]]
    keys = [imported("zeta_1", key_prefix="zeta"), imported("acme_1")]
    answer = await auth.stub.ImportApiKeys(import_request(acme, *keys), metadata=owner_of(auth, acme))
    read = await read_until(early, lambda each: each.grants)
    assert prefixes(read) == [["acme_", "zeta"]]
    late = await open_watch()
    assert prefixes(await read_until(late, lambda each: each.snapshot_complete)) == [["acme_", "zeta"]]
    await auth.stub.RevokeApiKey(
        pb.RevokeApiKeyRequest(organization_id=str(acme.organization_id), api_key_id=answer.api_keys[0].api_key_id),
        metadata=owner_of(auth, acme),
    )
    for call in (early, late):
        read = await read_until(call, lambda each: each.HasField("imported_prefixes"))
        assert prefixes(read) == [["acme_"]]
        call.cancel()


async def test_a_stream_learns_of_a_beginning_that_went_and_came_while_nobody_watched(
    auth: Any, acme: SeededOrganization
) -> None:
    """What was told last is what comes again, and the stream in between was told something else."""
    async with asyncio.timeout(60):
        while not auth.key_changes.is_listening:
            await asyncio.sleep(0.01)
    changes = auth.key_changes
    await auth.stub.ImportApiKeys(import_request(acme, imported("acme_1")), metadata=owner_of(auth, acme))
    (notice,) = [f"key {acme.organization_id} {UUID(bytes=(await resolve(auth, digest('acme_1'))).api_key_id)}"]
    told = await changes.read_changes(frozenset([notice]))
    assert told[0].prefixes == ("acme_",)
    assert len(await changes.read_changes(frozenset([notice]))) == 1
    await changes.take_snapshot(0)
    assert (await changes.read_changes(frozenset([notice])))[0] == told[0]


def report(organization: SeededOrganization, *uses: tuple[bytes, int]) -> pb.ReportKeyUsesRequest:
    return pb.ReportKeyUsesRequest(
        uses=[
            pb.KeyUse(organization_id=organization.organization_id.bytes, api_key_id=key_id, age_seconds=age)
            for key_id, age in uses
        ]
    )


async def test_the_last_use_is_what_edges_report_and_resolving_writes_nothing(
    auth: Any, acme: SeededOrganization, other: SeededOrganization
) -> None:
    dsn = auth.database.dsn("auth_system")
    keys = [await seed_key(dsn, acme.organization_id, acme.owner_id) for _ in range(3)]
    foreign_id, _ = await seed_key(dsn, other.organization_id, other.owner_id)
    await auth.stub.ResolveKeys(pb.ResolveKeysRequest(digests=[keys[0][1]]), metadata=auth.process(EDGE))

    async def last_uses() -> list[float | None]:
        got = await auth.stub.BatchGetApiKeys(
            pb.BatchGetApiKeysRequest(
                organization_id=str(acme.organization_id), api_key_ids=[str(key_id) for key_id, _ in keys]
            ),
            metadata=owner_of(auth, acme),
        )
        now = datetime.now(UTC)
        return [
            round((now - key.last_use_time.ToDatetime(tzinfo=UTC)).total_seconds())
            if key.HasField("last_use_time")
            else None
            for key in got.api_keys
        ]

    assert await last_uses() == [None, None, None]
    first, second = keys[0][0].bytes, keys[1][0].bytes
    request = report(acme, (first, 700), (first, 600), (second, 400), (foreign_id.bytes, 1), (b"n" * 16, 1))
    await auth.stub.ReportKeyUses(request, metadata=auth.process(EDGE))
    about = await last_uses()
    assert about[2] is None
    assert 600 <= (about[0] or 0) < 660
    assert 400 <= (about[1] or 0) < 460
    # The second is less than a step behind, and what is older changes nothing.
    await auth.stub.ReportKeyUses(report(acme, (first, 0), (second, 200)), metadata=auth.process(EDGE))
    await auth.stub.ReportKeyUses(report(acme, (first, 5_000)), metadata=auth.process(EDGE))
    about = await last_uses()
    assert (about[0] or 0) < 60
    assert 400 <= (about[1] or 0) < 460
    async with auth.db.system() as tx:
        assert await tx.fetchval("SELECT last_use_time FROM api_keys WHERE api_key_id = $1", foreign_id) is None


async def test_a_use_after_the_end_of_a_key_does_not_count(auth: Any, acme: SeededOrganization) -> None:
    dsn = auth.database.dsn("auth_system")
    key_id, _ = await seed_key(dsn, acme.organization_id, acme.owner_id)
    async with auth.db.system() as tx:
        await tx.execute("UPDATE api_keys SET revoke_time = now() - interval '1 hour'")
    await auth.stub.ReportKeyUses(report(acme, (key_id.bytes, 10)), metadata=auth.process(EDGE))
    async with auth.db.system() as tx:
        assert await tx.fetchval("SELECT last_use_time FROM api_keys") is None
    await auth.stub.ReportKeyUses(report(acme, (key_id.bytes, 3_700)), metadata=auth.process(EDGE))
    async with auth.db.system() as tx:
        assert await tx.fetchval("SELECT last_use_time FROM api_keys") is not None


async def test_a_report_that_is_wrong_is_refused(auth: Any, acme: SeededOrganization) -> None:
    for request in (
        report(acme, (b"short", 1)),
        report(acme, (b"k" * 16, 2**31)),
        report(acme, *([(b"k" * 16, 1)] * 10_001)),
    ):
        refused = await refusal(auth.stub.ReportKeyUses(request, metadata=auth.process(EDGE)))
        assert [violation.field for violation in refused.violations] == ["uses"]
