"""The audit log is read by filters and pages, exported as a file, and only ever grows."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.ids import RandomIds
from mesh.rpc.errors import ReceivedError, from_grpc
from services.auth import audit, audit_reading, store
from services.auth.model import AuditEntry, AuditFilter, AuditPlace
from services.auth.rpc.audit import from_place_text, to_place_text
from tests.support.accounts import SeededOrganization, seed_organization, seed_person

START = datetime(2024, 1, 1, tzinfo=UTC)
ACTORS = ["alice", "bob", "billing"]
ACTIONS = ["api_key.create", "api_key.revoke", "member.remove", "api_key_import.create"]
RESOURCES = ["api_key/1", "api_key/2", "member/3"]


@pytest.fixture
async def acme(auth: Any) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"), "acme")


def entry(organization_id: UUID, number: int, **values: Any) -> AuditEntry:
    chosen: dict[str, Any] = {
        "details": {"number": number},
        "actor": ACTORS[number % 3],
        "action": ACTIONS[number // 3 % 4],
        "resource": RESOURCES[number // 2 % 3],
        # Several at one instant, and ids that are not in the order of time.
        "create_time": START + timedelta(minutes=number // 4),
    }
    return AuditEntry(audit_entry_id=RandomIds().uuid7(), organization_id=organization_id, **chosen | values)


async def append(auth: Any, entries: Sequence[AuditEntry]) -> None:
    async with auth.db.system() as tx:
        for each in reversed(entries):
            await audit.append(tx, each)


async def page_through(auth: Any, caller: Any, organization_id: UUID, wanted: pb.AuditFilter | None, size: int) -> Any:
    request = pb.ListAuditEntriesRequest(organization_id=str(organization_id), page_size=size, filter=wanted)
    found = []
    while True:
        answer = await auth.stub.ListAuditEntries(request, metadata=caller)
        assert len(answer.audit_entries) <= size
        found += answer.audit_entries
        if not answer.next_page_token:
            return found
        assert len(answer.audit_entries) == size
        request.page_token = answer.next_page_token


async def export(auth: Any, caller: Any, request: pb.ExportAuditEntriesRequest) -> str:
    return b"".join([part.content async for part in auth.stub.ExportAuditEntries(request, metadata=caller)]).decode()


async def refusal(call: Any) -> ReceivedError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_grpc(refused.value)


def matches(each: AuditEntry, wanted: pb.AuditFilter) -> bool:
    kind, _, verb = wanted.action.partition(".")
    return (
        (not wanted.actor or each.actor == wanted.actor)
        and (not wanted.resource or each.resource == wanted.resource)
        and (not kind or each.action.split(".")[0] == kind)
        and (verb in {"", "*"} or each.action == wanted.action)
        and (not wanted.HasField("start_time") or each.create_time >= wanted.start_time.ToDatetime(tzinfo=UTC))
        and (not wanted.HasField("end_time") or each.create_time < wanted.end_time.ToDatetime(tzinfo=UTC))
    )


async def test_every_combination_of_filters_finds_its_entries_in_pages_and_in_the_export(
    auth: Any, acme: SeededOrganization
) -> None:
    other = await seed_organization(auth.database.dsn("auth_system"), "other")
    entries = [entry(acme.organization_id, number) for number in range(60)]
    await append(auth, [*entries, *(entry(other.organization_id, number) for number in range(5))])
    caller = auth.person(acme.owner_id, acme.organization_id)
    minute = st.none() | st.integers(-1, 16).map(lambda number: START + timedelta(minutes=number))

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        actor=st.sampled_from(["", *ACTORS, "nobody"]),
        action=st.sampled_from(["", *ACTIONS, "api_key.*", "member.*", "nothing.*"]),
        resource=st.sampled_from(["", *RESOURCES, "api_key/9"]),
        times=st.tuples(minute, minute),
        size=st.sampled_from([1, 7, 100]),
    )
    async def find(actor: str, action: str, resource: str, times: Any, size: int) -> None:
        wanted = pb.AuditFilter(actor=actor, action=action, resource=resource)
        start_time, end_time = times
        if start_time is not None:
            wanted.start_time.FromDatetime(start_time)
        if end_time is not None and (start_time is None or start_time < end_time):
            wanted.end_time.FromDatetime(end_time)
        due = [each for each in entries if matches(each, wanted)]
        oldest_first = [str(e.audit_entry_id) for e in sorted(due, key=lambda e: (e.create_time, e.audit_entry_id))]
        found = await page_through(auth, caller, acme.organization_id, wanted, size)
        assert [each.audit_entry_id for each in found if each.action != "audit.export"] == oldest_first[::-1]
        request = pb.ExportAuditEntriesRequest(organization_id=str(acme.organization_id), filter=wanted)
        lines = [json.loads(line) for line in (await export(auth, caller, request)).splitlines()]
        assert [line["audit_entry_id"] for line in lines if line["action"] != "audit.export"] == oldest_first

    await find_all(find)


async def find_all(find: Any) -> None:
    """Runs a Hypothesis test whose body is a coroutine inside the loop that is running."""
    loop = asyncio.get_running_loop()
    inner = find.hypothesis.inner_test

    def run(**values: Any) -> None:
        asyncio.run_coroutine_threadsafe(inner(**values), loop).result(60)

    find.hypothesis.inner_test = run
    await asyncio.to_thread(find)


async def test_entries_that_come_late_or_meanwhile_neither_repeat_nor_hide_others(
    auth: Any, acme: SeededOrganization
) -> None:
    entries = [entry(acme.organization_id, number) for number in range(12)]
    await append(auth, entries)
    caller = auth.person(acme.owner_id, acme.organization_id)
    request = pb.ListAuditEntriesRequest(organization_id=str(acme.organization_id), page_size=5)
    first = await auth.stub.ListAuditEntries(request, metadata=caller)
    newer = entry(acme.organization_id, 90, create_time=START + timedelta(days=1))
    late = entry(acme.organization_id, 91, create_time=START)
    await append(auth, [newer, late])
    request.page_token = first.next_page_token
    request.page_size = 100
    rest = await auth.stub.ListAuditEntries(request, metadata=caller)
    found = [each.audit_entry_id for each in (*first.audit_entries, *rest.audit_entries)]
    assert len(found) == len(set(found))
    assert set(found) == {str(each.audit_entry_id) for each in (*entries, late)}


async def test_a_page_token_belongs_to_its_filter_and_its_organization(auth: Any, acme: SeededOrganization) -> None:
    other = await seed_organization(auth.database.dsn("auth_system"), "other")
    for organization in (acme, other):
        await append(auth, [entry(organization.organization_id, number) for number in range(12)])
    caller = auth.person(acme.owner_id, acme.organization_id)
    wanted = pb.AuditFilter(action="api_key.*")
    request = pb.ListAuditEntriesRequest(organization_id=str(acme.organization_id), page_size=2, filter=wanted)
    token = (await auth.stub.ListAuditEntries(request, metadata=caller)).next_page_token
    assert token
    for changed in (None, pb.AuditFilter(action="api_key.create"), pb.AuditFilter(action="api_key.*", actor="bob")):
        again = pb.ListAuditEntriesRequest(organization_id=request.organization_id, filter=changed, page_token=token)
        refused = await refusal(auth.stub.ListAuditEntries(again, metadata=caller))
        assert [violation.field for violation in refused.violations] == ["page_token"]
    elsewhere = pb.ListAuditEntriesRequest(
        organization_id=str(other.organization_id), filter=wanted, page_token=token, page_size=2
    )
    stranger = auth.person(other.owner_id, other.organization_id)
    assert (await refusal(auth.stub.ListAuditEntries(elsewhere, metadata=stranger))).reason == "INVALID_FIELDS"


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (pb.AuditFilter(action="api_key"), "filter.action"),
        (pb.AuditFilter(action="*"), "filter.action"),
        (pb.AuditFilter(action="*.create"), "filter.action"),
        (pb.AuditFilter(action="api_%.create"), "filter.action"),
        (pb.AuditFilter(action="a.b\n"), "filter.action"),
        (pb.AuditFilter(actor="x" * 255), "filter.actor"),
        (pb.AuditFilter(resource="x\ny"), "filter.resource"),
        (pb.AuditFilter(start_time={"seconds": 10}, end_time={"seconds": 10}), "filter.end_time"),
        (pb.AuditFilter(start_time={"seconds": 10**14}), "filter.start_time"),
    ],
)
async def test_a_wrong_filter_is_named(auth: Any, acme: SeededOrganization, wanted: Any, field: str) -> None:
    caller = auth.person(acme.owner_id, acme.organization_id)
    organization_id = str(acme.organization_id)
    listing = pb.ListAuditEntriesRequest(organization_id=organization_id, filter=wanted)
    exporting = pb.ExportAuditEntriesRequest(organization_id=organization_id, filter=wanted)
    refused = await refusal(auth.stub.ListAuditEntries(listing, metadata=caller))
    assert [violation.field for violation in refused.violations] == [field]
    assert (await refusal(export(auth, caller, exporting))).reason == "INVALID_FIELDS"


async def test_an_export_is_audited_with_who_and_which_and_begins_with_a_head(
    auth: Any, acme: SeededOrganization
) -> None:
    await append(auth, [entry(acme.organization_id, 0, actor="=1+1", before={"a": 1}, after={"a": "ü"})])
    caller = auth.person(acme.owner_id, acme.organization_id)
    wanted = pb.AuditFilter(action="api_key.*", end_time={"seconds": 2_000_000_000})
    request = pb.ExportAuditEntriesRequest(
        organization_id=str(acme.organization_id), filter=wanted, format=pb.AUDIT_EXPORT_FORMAT_CSV
    )
    head, row = csv.reader(io.StringIO(await export(auth, caller, request), newline=""))
    shown = dict(zip(head, row, strict=True))
    assert (shown["actor"], json.loads(shown["before"]), json.loads(shown["after"])) == ("'=1+1", {"a": 1}, {"a": "ü"})
    (noted,) = await page_through(auth, caller, acme.organization_id, pb.AuditFilter(action="audit.export"), 10)
    assert (noted.actor, noted.actor_kind, noted.address) == (str(acme.owner_id), "person", "ipv4:127.0.0.1")
    assert noted.resource == f"organization/{acme.organization_id}"
    assert dict(noted.details) == {
        "format": "csv",
        "action": "api_key.*",
        "end_time": "2033-05-18T03:33:20+00:00",
    }


async def test_an_export_of_many_parts_is_complete(
    auth: Any, acme: SeededOrganization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_reading, "ENTRIES_PER_PART", 7)
    for count in (0, 6, 7, 8, 21):
        await append(auth, [entry(acme.organization_id, number) for number in range(count)])
        request = pb.ExportAuditEntriesRequest(
            organization_id=str(acme.organization_id), filter=pb.AuditFilter(end_time={"seconds": 1_800_000_000})
        )
        lines = (await export(auth, auth.person(acme.owner_id, acme.organization_id), request)).splitlines()
        entries = [json.loads(line) for line in lines]
        assert sum(each["action"] != "audit.export" for each in entries) == count + sum(
            c for c in (0, 6, 7, 8, 21) if c < count
        )


async def test_a_client_that_leaves_ends_the_export(
    auth: Any, acme: SeededOrganization, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append(auth, [entry(acme.organization_id, number, details={"x": "y" * 3_000}) for number in range(400)])
    monkeypatch.setattr(audit_reading, "ENTRIES_PER_PART", 5)
    ended = asyncio.Event()
    read = 0
    parts = audit_reading.AuditReading.parts

    async def watched(*values: Any) -> Any:
        nonlocal read
        try:
            async for part in parts(*values):
                read += 1
                yield part
        finally:
            ended.set()

    monkeypatch.setattr(audit_reading.AuditReading, "parts", watched)
    request = pb.ExportAuditEntriesRequest(organization_id=str(acme.organization_id))
    call = auth.stub.ExportAuditEntries(request, metadata=auth.person(acme.owner_id, acme.organization_id))
    await call.read()
    call.cancel()
    await asyncio.wait_for(ended.wait(), 60)
    assert read < 80
    async with auth.db.system() as tx:
        held = await tx.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
        )
    assert held == 0


async def test_a_member_reads_and_exports_nothing(auth: Any, acme: SeededOrganization) -> None:
    dsn = auth.database.dsn("auth_system")
    member_id = await seed_person(dsn, acme.organization_id, "m@acme.example", "member")
    member = auth.person(member_id, acme.organization_id, "member")
    request = pb.ExportAuditEntriesRequest(organization_id=str(acme.organization_id))
    assert (await refusal(export(auth, member, request))).reason == "ROLE_INSUFFICIENT"
    async with auth.db.system() as tx:
        assert await tx.fetchval("SELECT count(*) FROM audit_entries WHERE action = 'audit.export'") == 0


FILTERS = {
    "audit_entries_time_idx": AuditFilter(start_time=START, end_time=START + timedelta(days=30)),
    "audit_entries_actor_idx": AuditFilter(actor="a8"),
    "audit_entries_action_idx": AuditFilter(action="api_key.create"),
    "audit_entries_kind_idx": AuditFilter(action="api_key.*"),
    "audit_entries_resource_idx": AuditFilter(resource="api_key/8"),
}


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", []) for node in nodes(child))]


@pytest.mark.parametrize("order", ["list_newest", "list_oldest"])
async def test_every_filter_is_answered_from_its_index_without_sorting(
    auth: Any, acme: SeededOrganization, order: str
) -> None:
    admin = await asyncpg.connect(auth.database.dsn("admin"))
    await admin.execute(
        """
        INSERT INTO auth.audit_entries (organization_id, audit_entry_id, actor, action, resource, create_time)
        SELECT CASE WHEN n % 2 = 0 THEN $1::uuid ELSE gen_random_uuid() END, gen_random_uuid(), 'a' || n % 10,
               CASE WHEN n % 20 = 0 THEN 'api_key.create' ELSE 'member.remove' END, 'api_key/' || n % 20,
               '2024-01-01'::timestamptz + n * interval '1 minute'
        FROM generate_series(1, 20000) AS n
        """,
        acme.organization_id,
    )
    await admin.execute("ANALYZE auth.audit_entries")
    await admin.close()

    middle = START + timedelta(minutes=10_000)
    for index, wanted in FILTERS.items():
        async with auth.db.read(acme.organization_id) as tx:
            explaining = Explaining(tx)
            after = AuditPlace(create_time=middle, audit_entry_id=UUID(int=0))
            await getattr(store.audit, order)(explaining, acme.organization_id, wanted, after=after, limit=51)
        plan = nodes(explaining.plan)
        assert {node["Node Type"] for node in plan} <= {"Limit", "Index Scan", "Result"}, plan
        (scan,) = [node for node in plan if "Index Name" in node]
        assert scan["Index Name"] == index
        assert "create_time" in scan["Index Cond"]


class Explaining:
    """Explains a statement where the store would run it."""

    def __init__(self, tx: Any) -> None:
        self.tx = tx
        self.plan: Any = None

    async def execute(self, statement: str) -> None:
        await self.tx.execute(statement)

    async def fetch(self, statement: str, *values: Any) -> list[Any]:
        await self.tx.execute(f"PREPARE explained AS {statement}")
        written = ", ".join(
            "NULL" if value is None else str(value) if isinstance(value, int) else f"'{value}'" for value in values
        )
        (row,) = await self.tx.fetch(f"EXPLAIN (FORMAT JSON) EXECUTE explained({written})")
        await self.tx.execute("DEALLOCATE explained")
        self.plan = json.loads(row[0])[0]["Plan"]
        return []


@pytest.mark.parametrize("role", ["auth", "auth_system", "owner", "admin"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE auth.audit_entries SET actor = 'x'",
        "DELETE FROM auth.audit_entries",
        "TRUNCATE auth.audit_entries CASCADE",
        "UPDATE ONLY auth.audit_entries SET details = '{}'",
        "MERGE INTO auth.audit_entries e USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
        """INSERT INTO auth.audit_entries SELECT * FROM auth.audit_entries
           ON CONFLICT (organization_id, audit_entry_id) DO UPDATE SET actor = 'x'""",
    ],
)
async def test_nobody_changes_or_removes_an_entry(
    auth: Any, acme: SeededOrganization, role: str, statement: str
) -> None:
    await append(auth, [entry(acme.organization_id, 1)])
    connection = await asyncpg.connect(auth.database.dsn(role))
    try:
        await connection.execute("SELECT set_config('tollway.organization_id', $1, false)", str(acme.organization_id))
        if "ON CONFLICT" in statement:
            with pytest.raises(asyncpg.PostgresError):
                await connection.execute(statement)
        else:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()
    async with auth.db.system() as tx:
        assert (
            await tx.fetchval("SELECT actor FROM audit_entries WHERE organization_id = $1", acme.organization_id)
            == (ACTORS[1])
        )


@pytest.mark.parametrize("role", ["auth", "auth_system"])
@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE auth.audit_entries",
        "ALTER TABLE auth.audit_entries DISABLE TRIGGER ALL",
        "DROP TRIGGER audit_entries_append_only ON auth.audit_entries",
        "SET session_replication_role = replica",
        "CREATE TABLE auth.child () INHERITS (auth.audit_entries)",
        "ALTER TABLE auth.audit_entries DISABLE ROW LEVEL SECURITY",
        "CREATE RULE forget AS ON INSERT TO auth.audit_entries DO INSTEAD NOTHING",
        "CREATE OR REPLACE FUNCTION auth.refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'",
        "CREATE TRIGGER t BEFORE INSERT ON auth.audit_entries EXECUTE FUNCTION auth.notify_job()",
        "CREATE INDEX CONCURRENTLY i ON auth.audit_entries (actor)",
    ],
)
async def test_no_role_of_the_service_takes_the_locks_off(auth: Any, role: str, statement: str) -> None:
    connection = await asyncpg.connect(auth.database.dsn(role))
    try:
        with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.InvalidObjectDefinitionError)):
            await connection.execute(statement)
    finally:
        await connection.close()


def test_a_place_reads_back_as_it_was_written() -> None:
    each = entry(UUID(int=1), 3, create_time=START + timedelta(microseconds=7))
    place = from_place_text(to_place_text(each))
    assert (place.create_time, place.audit_entry_id) == (each.create_time, each.audit_entry_id)
