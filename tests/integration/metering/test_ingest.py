"""Exactly once, on real PostgreSQL."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tollway.events.v1 import usage_event_pb2 as events

from mesh.clock import ManualClock, SystemClock
from mesh.database.pools import Database
from mesh.rpc.errors import Unavailable
from services.metering import store
from services.metering.event_parsing import hash_of
from services.metering.ingest import Ingester
from services.metering.maintenance import Maintenance
from services.metering.model import BatchResult, IngestBatch, Source
from services.metering.weeks import week_of
from tests.support.cut_off import cuttable
from tests.support.metering import IDS, ORGANIZATION, OTHER_ORGANIZATION, payload
from tests.support.postgres import TestDatabase

JOURNAL = Source(name="journal:test", partition=0)


def batch(payloads: list[bytes], *, next_offset: int = 1, source: Source = JOURNAL) -> IngestBatch:
    return IngestBatch(source=source, next_offset=next_offset, payloads=payloads)


def result(accepted: int = 0, duplicate: int = 0, dead: int = 0) -> BatchResult:
    return BatchResult(accepted_count=accepted, duplicate_count=duplicate, dead_count=dead)


async def fetch(db: Database, statement: str, *values: object) -> list[Any]:
    async with db.system() as tx:
        return await tx.fetch(statement, *values)


async def totals(db: Database) -> tuple[int, int, int, int]:
    """Stored events, and what the rollups say: requests, billable units, requests with test keys."""
    (stored,) = await fetch(db, "SELECT count(*) FROM usage_events")
    (rolled,) = await fetch(
        db,
        "SELECT coalesce(sum(request_count), 0) AS r, coalesce(sum(billable_units), 0) AS u, "
        "coalesce(sum(test_count), 0) AS t FROM usage_rollups",
    )
    return stored["count"], int(rolled["r"]), int(rolled["u"]), int(rolled["t"])


async def test_every_outcome_is_stored_and_only_billable_live_units_are_summed(
    db: Database, ingester: Ingester
) -> None:
    payloads = [
        payload(cost_units=3),
        payload(status=404),
        payload(status=500),
        payload(status=429, outcome=events.OUTCOME_REFUSED),
        payload(test_mode=True, cost_units=9),
    ]
    assert await ingester.apply([batch(payloads)]) == [result(accepted=5)]
    assert await totals(db) == (5, 4, 4, 1)


async def test_concurrent_batches_with_the_same_events_count_each_once(db: Database, ingester: Ingester) -> None:
    payloads = [payload(route_id=f"route-{number % 3}") for number in range(200)]
    other = Ingester(db=db, clock=SystemClock())
    shuffled = [random.Random(seed).sample(payloads, len(payloads)) for seed in range(8)]
    sources = [Source(name=f"journal:{number}", partition=0) for number in range(8)]
    answers = await asyncio.gather(
        *((ingester, other)[number % 2].apply([batch(shuffled[number], source=sources[number])]) for number in range(8))
    )
    assert sum(answer.accepted_count for (answer,) in answers) == 200
    assert sum(answer.duplicate_count for (answer,) in answers) == 7 * 200
    assert await totals(db) == (200, 200, 200, 0)


async def test_an_id_with_another_payload_is_a_conflict_and_the_first_one_stays(
    db: Database, ingester: Ingester
) -> None:
    same_id = IDS.uuid7_bytes()
    first, second = payload(id=same_id, cost_units=1), payload(id=same_id, cost_units=50)
    assert await ingester.apply([batch([first])]) == [result(accepted=1)]
    assert await ingester.apply([batch([second, second])]) == [result(dead=1, duplicate=1)]
    assert await ingester.apply([batch([second, payload()])]) == [result(dead=1, accepted=1)]
    assert await totals(db) == (2, 2, 2, 0)
    (letter,) = await fetch(db, "SELECT reason, payload FROM dead_letters")
    assert (letter["reason"], letter["payload"]) == ("conflict", second)


async def test_the_same_id_in_two_organizations_is_two_events(db: Database, ingester: Ingester) -> None:
    same_id = IDS.uuid7_bytes()
    both = [payload(id=same_id), payload(id=same_id, organization_id=OTHER_ORGANIZATION.bytes)]
    assert await ingester.apply([batch(both)]) == [result(accepted=2)]


async def test_a_conflict_inside_one_batch_keeps_the_first(db: Database, ingester: Ingester) -> None:
    same_id = IDS.uuid7_bytes()
    payloads = [payload(id=same_id, cost_units=1), payload(id=same_id, cost_units=2)]
    assert await ingester.apply([batch(payloads)]) == [result(accepted=1, dead=1)]
    assert (await totals(db))[2] == 1


async def test_poison_goes_to_the_dead_letters_and_stops_nothing(db: Database, ingester: Ingester) -> None:
    poison = [b"\xff", payload(route_id="a\x00b"), payload(status=7), payload(api_key_id=b"short")]
    answer = await ingester.apply([batch([*poison, payload()])])
    assert answer == await ingester.apply([batch([*poison, payload()])]) == [result(accepted=1, dead=4)]
    letters = await fetch(db, "SELECT reason, count(*) FROM dead_letters GROUP BY reason ORDER BY reason")
    assert [tuple(letter) for letter in letters] == [("invalid", 3), ("unreadable", 1)]


async def test_events_without_an_organization_are_neither_stored_nor_dead(db: Database, ingester: Ingester) -> None:
    assert await ingester.apply([batch([payload(organization_id=b"")])]) == [result()]
    assert await totals(db) == (0, 0, 0, 0)


async def test_merged_batches_are_answered_each_for_itself(db: Database, ingester: Ingester) -> None:
    shared, other = payload(), Source(name="kafka:usage-events", partition=3)
    answers = await ingester.apply(
        [batch([shared, payload()], next_offset=10), batch([shared, b"\xff"], next_offset=7, source=other)]
    )
    assert answers == [result(accepted=2), result(duplicate=1, dead=1)]
    assert (await ingester.offset(JOURNAL), await ingester.offset(other)) == (10, 7)


async def test_positions_never_go_back(ingester: Ingester) -> None:
    assert await ingester.offset(JOURNAL) is None
    await ingester.apply([batch([], next_offset=10)])
    await ingester.apply([batch([], next_offset=4)])
    assert await ingester.offset(JOURNAL) == 10


async def test_a_crash_before_the_commit_leaves_nothing_and_the_repetition_counts_once(
    db: Database, ingester: Ingester, database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    payloads = [payload() for _ in range(20)]
    find_conflicts, store_staged = store.find_conflicts, store.store_staged

    async def die_after_storing(tx: Any, **weeks: Any) -> list[int]:
        stored = await store_staged(tx, **weeks)
        admin = await asyncpg.connect(database.dsn("admin"))
        await admin.execute("SELECT pg_terminate_backend($1)", await tx.fetchval("SELECT pg_backend_pid()"))
        await admin.close()
        await tx.fetchval("SELECT 1")
        return stored

    monkeypatch.setattr(store, "store_staged", die_after_storing)
    with pytest.raises(Unavailable):
        await ingester.apply([batch(payloads, next_offset=20)])
    monkeypatch.undo()
    assert store.find_conflicts is find_conflicts
    assert await totals(db) == (0, 0, 0, 0)
    assert await ingester.offset(JOURNAL) is None
    assert await ingester.apply([batch(payloads, next_offset=20)]) == [result(accepted=20)]
    assert await totals(db) == (20, 20, 20, 0)


async def test_without_postgresql_nothing_is_taken_in_and_afterwards_all_of_it(database: TestDatabase) -> None:
    payloads = [payload() for _ in range(3)]
    async with cuttable(database) as (way, reached):
        db = await Database.connect(
            tenant_dsn=reached.dsn("metering"), system_dsn=reached.dsn("metering_system"), name="metering-test"
        )
        ingester = Ingester(db=db, clock=SystemClock())
        assert await ingester.apply([batch(payloads[:1])]) == [result(accepted=1)]
        way.cut()
        with pytest.raises(Unavailable):
            await ingester.apply([batch(payloads)])
        with pytest.raises(Unavailable):
            await db.ping()
        await way.open()
        assert await ingester.apply([batch(payloads)]) == [result(accepted=2, duplicate=1)]
        await db.close()


async def test_late_and_early_events_land_in_their_own_buckets(db: Database, ingester: Ingester) -> None:
    now = datetime.now(UTC)
    moments = [now - timedelta(days=33), now - timedelta(days=20), now + timedelta(minutes=30)]
    payloads = [payload(start_time_us=int(moment.timestamp() * 1_000_000)) for moment in moments]
    assert await ingester.apply([batch(payloads)]) == [result(accepted=3)]
    rows = await fetch(db, "SELECT bucket_start FROM usage_rollups ORDER BY bucket_start")
    for row, moment in zip(rows, moments, strict=True):
        assert timedelta() <= moment - row["bucket_start"] < timedelta(minutes=15)


async def test_an_id_of_an_earlier_week_is_still_known_after_the_week_has_turned(
    db: Database, ingester: Ingester, database: TestDatabase
) -> None:
    made_ms = int((time.time() - 9 * 86_400) * 1000)
    old_id = made_ms.to_bytes(6, "big") + b"\x70\x00\x80" + b"\x00" * 7
    old = payload(id=old_id)
    await pretend_arrival_week(database, week_of(datetime.now(UTC) - timedelta(days=7)))
    async with db.system() as tx:
        last_week = week_of(datetime.now(UTC) - timedelta(days=7))
        await store.create_week_partition(tx, store.EVENT_IDS_TABLE, last_week)
        await tx.execute(
            "INSERT INTO usage_event_ids (organization_id, event_id, arrival_week, payload_hash) "
            "VALUES ($1, $2, $3, $4)",
            ORGANIZATION,
            uuid.UUID(bytes=old_id),
            last_week,
            b"another payload",
        )
    assert await ingester.apply([batch([old])]) == [result(dead=1)]
    (week,) = await fetch(db, "SELECT week FROM arrival_weeks")
    assert week["week"] == week_of(datetime.now(UTC))


async def test_the_week_does_not_turn_under_a_transaction_that_files_under_the_old_one(
    db: Database, database: TestDatabase
) -> None:
    last_week = week_of(datetime.now(UTC) - timedelta(days=7))
    async with db.system() as old:
        await pretend_arrival_week(database, last_week)
        await old.fetchval(store.QUERIES["hold_arrival_week"])

        async def turn() -> date:
            async with db.system() as new:
                return await store.hold_arrival_week(new)

        turning = asyncio.create_task(turn())
        done, _ = await asyncio.wait([turning], timeout=0.3)
        assert not done
    assert await asyncio.wait_for(turning, 30) == week_of(datetime.now(UTC))


def made_at(moment: datetime) -> bytes:
    return int(moment.timestamp() * 1000).to_bytes(6, "big") + b"\x70\x00\x80" + b"\x00" * 7


@pytest.mark.parametrize(
    "wrong",
    [timedelta(hours=-2), timedelta(hours=2), timedelta(days=400), timedelta(days=-400), timedelta(days=-20_000)],
)
async def test_an_edge_with_a_wrong_clock_is_billed_for_everything_and_marked(
    db: Database, ingester: Ingester, wrong: timedelta
) -> None:
    then = datetime.now(UTC) + wrong
    start_time_us = int(then.timestamp() * 1_000_000)
    sent = [payload(id=made_at(then), start_time_us=start_time_us, cost_units=2), payload(duration_us=-5)]
    assert await ingester.apply([batch(sent)]) == [result(accepted=2)]
    assert await ingester.apply([batch(sent)]) == [result(duplicate=2)]
    assert await totals(db) == (2, 2, 3, 0)
    rows = await fetch(
        db, "SELECT start_time, time_suspect, claimed_start_time_us FROM usage_events ORDER BY cost_units"
    )
    assert rows[0]["time_suspect"] == "negative_duration"
    if timedelta(days=-34) < wrong <= timedelta():
        assert rows[1]["time_suspect"] is None
    else:
        assert rows[1]["claimed_start_time_us"] == start_time_us
        assert abs(rows[1]["start_time"] - datetime.now(UTC)) < timedelta(minutes=5)


async def test_metering_with_a_wrong_clock_refuses_nobody(db: Database) -> None:
    behind = Ingester(db=db, clock=ManualClock(datetime.now(UTC) - timedelta(hours=3)))
    sent = [payload() for _ in range(50)]
    assert await behind.apply([batch(sent)]) == [result(accepted=50)]
    assert await Ingester(db=db, clock=SystemClock()).apply([batch(sent)]) == [result(duplicate=50)]
    assert (await fetch(db, "SELECT count(*) FROM dead_letters"))[0]["count"] == 0


async def test_an_id_from_the_future_counts_once_although_the_week_turns(
    db: Database, ingester: Ingester, database: TestDatabase
) -> None:
    sent = payload(id=made_at(datetime.now(UTC) + timedelta(days=30)))
    await pretend_arrival_week(database, week_of(datetime.now(UTC) - timedelta(days=7)))
    async with db.system() as tx:
        last_week = week_of(datetime.now(UTC) - timedelta(days=7))
        await store.create_week_partition(tx, store.EVENT_IDS_TABLE, last_week)
        await tx.execute(
            "INSERT INTO usage_event_ids (organization_id, event_id, arrival_week, payload_hash) "
            "VALUES ($1, $2, $3, $4)",
            ORGANIZATION,
            uuid.UUID(bytes=events.UsageEvent.FromString(sent).id),
            last_week,
            hash_of(sent),
        )
    assert await ingester.apply([batch([sent])]) == [result(duplicate=1)]


async def test_a_journal_that_comes_back_after_its_ids_are_forgotten_is_not_counted_again(
    db: Database, ingester: Ingester
) -> None:
    now = datetime.now(UTC)
    old = [payload(id=long_ago(now, number)) for number in range(3)]
    await Ingester(db=db, clock=ManualClock(now - timedelta(days=40))).apply([batch([], next_offset=100)])
    assert await ingester.apply([batch(old[:2], next_offset=60)]) == [result(dead=2)]
    assert await ingester.apply([batch(old[2:], next_offset=90)]) == [result(dead=1)]
    assert await ingester.apply([batch([payload()], next_offset=90)]) == [result(accepted=1)]
    assert await ingester.apply([batch(old, next_offset=110)]) == [result(accepted=3)]


def long_ago(now: datetime, number: int) -> bytes:
    return made_at(now - timedelta(days=41))[:-1] + bytes([number])


async def test_maintenance_makes_weeks_ahead_and_drops_expired_ones_only(db: Database) -> None:
    now = datetime.now(UTC)
    async with db.system() as tx:
        for weeks in (5, 6, 7, 9):
            await store.create_week_partition(tx, store.EVENT_IDS_TABLE, week_of(now - timedelta(weeks=weeks)))
    maintenance = Maintenance(db=db, clock=SystemClock())
    dropped = await maintenance.run_once()
    assert await maintenance.run_once() == 0
    rows = await fetch(
        db,
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'usage_event_ids'::regclass",
    )
    weeks = {row["relname"].removeprefix("usage_event_ids_w") for row in rows}
    assert {f"{week_of(now + timedelta(weeks=ahead)):%Y%m%d}" for ahead in range(5)} < weeks
    assert f"{week_of(now - timedelta(weeks=5)):%Y%m%d}" in weeks
    assert f"{week_of(now - timedelta(weeks=9)):%Y%m%d}" not in weeks
    assert dropped >= 1


async def test_partitions_are_closed_to_the_services_own_roles(db: Database, ingester: Ingester) -> None:
    await ingester.apply([batch([payload()])])
    partition = f"usage_events_w{week_of(datetime.now(UTC)):%Y%m%d}"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await fetch(db, f"SELECT * FROM {partition}")


async def test_a_tenant_sees_its_own_rows_only(db: Database, ingester: Ingester) -> None:
    await ingester.apply([batch([payload(), payload(organization_id=OTHER_ORGANIZATION.bytes)])])
    async with db.tenant(ORGANIZATION) as tx:
        for table in ("usage_events", "usage_rollups", "usage_event_ids"):
            rows = await tx.fetch(f"SELECT organization_id FROM {table}")
            assert {row["organization_id"] for row in rows} == {ORGANIZATION}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(12)), repeats=st.lists(st.integers(0, 11), max_size=12), size=st.integers(1, 9))
async def test_any_order_and_repetition_gives_the_same_sums(
    db: Database, ingester: Ingester, order: list[int], repeats: list[int], size: int
) -> None:
    organization = uuid.uuid4()
    statuses = (200, 204, 302, 404, 500, 503)
    payloads = [
        payload(organization_id=organization.bytes, status=statuses[n % 6], cost_units=n + 1, route_id=f"r{n % 2}")
        for n in range(12)
    ]
    sent = [payloads[n] for n in [*order, *repeats]]
    random.Random(size).shuffle(sent)
    tally: Counter[str] = Counter()
    for start in range(0, len(sent), size):
        (answer,) = await ingester.apply([batch(sent[start : start + size])])
        tally.update(accepted=answer.accepted_count, duplicate=answer.duplicate_count)
    assert tally == Counter(accepted=12, duplicate=len(repeats))
    rows = await fetch(
        db,
        "SELECT route_id, status_class, request_count, billable_units FROM usage_rollups WHERE organization_id = $1",
        organization,
    )
    assert sum(row["request_count"] for row in rows) == 12
    assert sum(row["billable_units"] for row in rows) == sum(n + 1 for n in range(12) if statuses[n % 6] < 500)


async def pretend_arrival_week(database: TestDatabase, week: date) -> None:
    admin = await asyncpg.connect(database.dsn("admin"))
    await admin.execute("UPDATE metering.arrival_weeks SET week = $1", week)
    await admin.close()
