"""Operators list, replay and drop what could not be taken in; over a real server, on real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from tollway.auth.v1 import auth_service_pb2
from tollway.metering.v1 import metering_service_pb2 as pb

from mesh import jobs
from mesh.audit import AuditTrail
from mesh.clock import ManualClock, SystemClock
from mesh.database.pools import Database
from mesh.ids import RandomIds
from mesh.rpc.errors import from_grpc
from services.metering.dead_letters import DeadLetters, DeadLettersWaiting
from services.metering.ingest import Ingester
from services.metering.jobs import Jobs
from services.metering.model import IngestBatch, Source
from tests.integration.metering.conftest import Running
from tests.support.machine_tokens import machine_token
from tests.support.metering import ADMIN_TOKEN, IDS, OPERATOR, ORGANIZATION, OWNER_TOKEN, SUPPORT_TOKEN, payload

JOURNAL = Source(name="journal:test", partition=0)


def bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


async def bury(ingester: Ingester, payloads: Sequence[bytes]) -> None:
    await ingester.apply([IngestBatch(source=JOURNAL, next_offset=1, payloads=payloads)])


async def listed(running: Running, state: pb.DeadLetterState.ValueType = 0, **page: Any) -> pb.ListDeadLettersResponse:
    request = pb.ListDeadLettersRequest(organization_id=str(OPERATOR), state=state, **page)
    return await running.stub().ListDeadLetters(request, metadata=bearer(SUPPORT_TOKEN))


async def stored(db: Database) -> tuple[int, int, list[str]]:
    async with db.system() as tx:
        events = await tx.fetchval("SELECT count(*) FROM usage_events")
        units = await tx.fetchval("SELECT coalesce(sum(billable_units), 0)::bigint FROM usage_rollups")
        actions = await tx.fetch("SELECT payload->>'action' AS action FROM jobs ORDER BY create_time, job_id")
    return events, units, [row["action"] for row in actions]


async def unstorable_then_storable(db: Database, ingester: Ingester, count: int) -> list[bytes]:
    """Leave events in the dead letters that a release of later could take in."""
    good = [payload(cost_units=2) for _ in range(count)]
    await bury(ingester, [b"\xff" + each for each in good])
    async with db.system() as tx:
        await tx.execute("UPDATE dead_letters SET payload = substring(payload FROM 2)")
    return good


async def test_dead_letters_degrade_health_until_somebody_decides(
    db: Database, ingester: Ingester, running: Running
) -> None:
    letters = DeadLetters(db=db, ingester=ingester, clock=SystemClock(), ids=RandomIds())
    await letters.check()
    await bury(ingester, [b"\xff", payload(status=7)])
    with pytest.raises(DeadLettersWaiting, match="2"):
        await letters.check()
    ids = [letter.dead_letter_id for letter in (await listed(running)).dead_letters]
    await running.stub().DropDeadLetters(
        pb.DropDeadLettersRequest(organization_id=str(OPERATOR), dead_letter_ids=ids), metadata=bearer(ADMIN_TOKEN)
    )
    await letters.check()


async def test_a_dead_letter_is_listed_page_by_page_and_shown_with_its_payload(
    ingester: Ingester, running: Running
) -> None:
    for number in range(3):
        await bury(ingester, [b"\xff%d" % number, payload(status=number)])
    found: list[pb.DeadLetter] = []
    page = await listed(running, page_size=2)
    while True:
        found += page.dead_letters
        if not page.next_page_token:
            break
        page = await listed(running, page_size=2, page_token=page.next_page_token)
    assert len({letter.dead_letter_id for letter in found}) == len(found) == 6
    assert [letter.create_time.ToNanoseconds() for letter in found] == sorted(
        letter.create_time.ToNanoseconds() for letter in found
    )
    invalid = next(letter for letter in found if letter.reason == pb.DEAD_LETTER_REASON_INVALID)
    assert (invalid.state, invalid.source, invalid.payload) == (pb.DEAD_LETTER_STATE_WAITING, JOURNAL.name, b"")
    assert "status" in invalid.detail
    request = pb.GetDeadLetterRequest(organization_id=str(OPERATOR), dead_letter_id=invalid.dead_letter_id)
    shown = await running.stub().GetDeadLetter(request, metadata=bearer(SUPPORT_TOKEN))
    assert b"orders" in shown.payload


async def test_a_replay_counts_once_is_audited_once_and_may_be_repeated(
    db: Database, ingester: Ingester, running: Running
) -> None:
    await unstorable_then_storable(db, ingester, 3)
    ids = [letter.dead_letter_id for letter in (await listed(running)).dead_letters]
    request = pb.ReplayDeadLettersRequest(organization_id=str(OPERATOR), dead_letter_ids=ids)
    answers = await asyncio.gather(
        *(running.stub().ReplayDeadLetters(request, metadata=bearer(ADMIN_TOKEN)) for _ in range(4))
    )
    for answer in answers:
        assert [letter.dead_letter_id for letter in answer.dead_letters] == ids
        assert {letter.state for letter in answer.dead_letters} == {pb.DEAD_LETTER_STATE_REPLAYED}
    assert await stored(db) == (3, 6, ["dead_letter.replayed"] * 3)
    assert (await listed(running)).dead_letters == []
    assert len((await listed(running, pb.DEAD_LETTER_STATE_REPLAYED)).dead_letters) == 3


async def test_a_replayed_event_that_was_taken_in_meanwhile_is_not_counted_again(
    db: Database, ingester: Ingester, running: Running
) -> None:
    good = await unstorable_then_storable(db, ingester, 1)
    await bury(ingester, good)
    (letter,) = (await listed(running)).dead_letters
    request = pb.ReplayDeadLettersRequest(organization_id=str(OPERATOR), dead_letter_ids=[letter.dead_letter_id])
    answer = await running.stub().ReplayDeadLetters(request, metadata=bearer(ADMIN_TOKEN))
    assert answer.dead_letters[0].state == pb.DEAD_LETTER_STATE_REPLAYED
    assert (await stored(db))[:2] == (1, 2)


async def test_what_still_cannot_be_taken_in_goes_on_waiting(
    db: Database, ingester: Ingester, running: Running
) -> None:
    await bury(ingester, [b"\xff"])
    (letter,) = (await listed(running)).dead_letters
    request = pb.ReplayDeadLettersRequest(organization_id=str(OPERATOR), dead_letter_ids=[letter.dead_letter_id])
    answer = await running.stub().ReplayDeadLetters(request, metadata=bearer(ADMIN_TOKEN))
    assert answer.dead_letters[0].state == pb.DEAD_LETTER_STATE_WAITING
    assert await stored(db) == (0, 0, [])


async def test_a_dropped_letter_is_kept_but_never_taken_in(db: Database, ingester: Ingester, running: Running) -> None:
    await unstorable_then_storable(db, ingester, 1)
    (letter,) = (await listed(running)).dead_letters
    drop = pb.DropDeadLettersRequest(organization_id=str(OPERATOR), dead_letter_ids=[letter.dead_letter_id])
    replay = pb.ReplayDeadLettersRequest(organization_id=str(OPERATOR), dead_letter_ids=[letter.dead_letter_id])
    for _ in range(2):
        answer = await running.stub().DropDeadLetters(drop, metadata=bearer(ADMIN_TOKEN))
        assert answer.dead_letters[0].state == pb.DEAD_LETTER_STATE_DROPPED
        assert answer.dead_letters[0].resolver == f"account of {OPERATOR}"
    again = await running.stub().ReplayDeadLetters(replay, metadata=bearer(ADMIN_TOKEN))
    assert again.dead_letters[0].state == pb.DEAD_LETTER_STATE_DROPPED
    assert await stored(db) == (0, 0, ["dead_letter.dropped"])


async def test_a_conflict_is_not_replayed_once_the_other_event_may_be_forgotten(db: Database, running: Running) -> None:
    long_ago = ManualClock(datetime.now(UTC) - timedelta(days=36))
    same_id = IDS.uuid7_bytes()
    await bury(Ingester(db=db, clock=long_ago), [payload(id=same_id), payload(id=same_id, cost_units=9)])
    async with db.system() as tx:
        await tx.execute("UPDATE dead_letters SET create_time = $1", long_ago.now())
    (letter,) = (await listed(running)).dead_letters
    assert letter.reason == pb.DEAD_LETTER_REASON_CONFLICT
    request = pb.ReplayDeadLettersRequest(organization_id=str(OPERATOR), dead_letter_ids=[letter.dead_letter_id])
    answer = await running.stub().ReplayDeadLetters(request, metadata=bearer(ADMIN_TOKEN))
    assert answer.dead_letters[0].state == pb.DEAD_LETTER_STATE_WAITING


async def test_a_journal_told_to_be_too_old_is_counted_when_an_operator_says_so(
    db: Database, ingester: Ingester, running: Running
) -> None:
    then = datetime.now(UTC) - timedelta(days=40)
    made = int((then - timedelta(days=1)).timestamp() * 1_000).to_bytes(6, "big") + b"\x70\x00\x80" + b"\x00" * 7
    await Ingester(db=db, clock=ManualClock(then)).apply([IngestBatch(source=JOURNAL, next_offset=9, payloads=[])])
    await bury(ingester, [payload(id=made, cost_units=2)])
    (letter,) = (await listed(running)).dead_letters
    assert letter.reason == pb.DEAD_LETTER_REASON_TOO_OLD
    request = pb.ReplayDeadLettersRequest(organization_id=str(OPERATOR), dead_letter_ids=[letter.dead_letter_id])
    for _ in range(2):
        await running.stub().ReplayDeadLetters(request, metadata=bearer(ADMIN_TOKEN))
    assert (await stored(db))[:2] == (1, 2)


@pytest.mark.parametrize(
    ("token", "organization_id", "code"),
    [
        (OWNER_TOKEN, ORGANIZATION, grpc.StatusCode.PERMISSION_DENIED),
        (OWNER_TOKEN, OPERATOR, grpc.StatusCode.NOT_FOUND),
        (SUPPORT_TOKEN, OPERATOR, grpc.StatusCode.PERMISSION_DENIED),
        (machine_token("stranger"), OPERATOR, grpc.StatusCode.UNAUTHENTICATED),
    ],
)
async def test_only_the_operators_admins_decide(
    db: Database, running: Running, token: str, organization_id: object, code: grpc.StatusCode
) -> None:
    ingester = Ingester(db=db, clock=SystemClock())
    await unstorable_then_storable(db, ingester, 1)
    (letter,) = (await listed(running)).dead_letters
    for method, request in (
        ("ReplayDeadLetters", pb.ReplayDeadLettersRequest),
        ("DropDeadLetters", pb.DropDeadLettersRequest),
    ):
        asked = request(organization_id=str(organization_id), dead_letter_ids=[letter.dead_letter_id])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(running.stub(), method)(asked, metadata=bearer(token))
        assert caught.value.code() is code
    assert await stored(db) == (0, 0, [])


@pytest.mark.parametrize(
    "ids", [[], ["x"], ["0" * 32 + "-nonsense"], ["0" * 32 + "-invalid"] * 2, ["z" * 32 + "-invalid"]]
)
async def test_wrong_ids_are_told(running: Running, ids: list[str]) -> None:
    request = pb.ReplayDeadLettersRequest(organization_id=str(OPERATOR), dead_letter_ids=ids)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.stub().ReplayDeadLetters(request, metadata=bearer(ADMIN_TOKEN))
    assert from_grpc(caught.value).violations[0].field.startswith("dead_letter_ids")


async def test_an_unknown_dead_letter_is_not_found(running: Running) -> None:
    request = pb.GetDeadLetterRequest(organization_id=str(OPERATOR), dead_letter_id="0" * 32 + "-invalid")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.stub().GetDeadLetter(request, metadata=bearer(SUPPORT_TOKEN))
    assert from_grpc(caught.value).reason == "DEAD_LETTER_NOT_FOUND"


async def test_the_audit_job_tells_auth_who_decided_what(db: Database, ingester: Ingester, running: Running) -> None:
    await bury(ingester, [b"\xff"])
    (letter,) = (await listed(running)).dead_letters
    await running.stub().DropDeadLetters(
        pb.DropDeadLettersRequest(organization_id=str(OPERATOR), dead_letter_ids=[letter.dead_letter_id]),
        metadata=bearer(ADMIN_TOKEN),
    )
    async with db.system() as tx:
        (row,) = await tx.fetch("SELECT job_id, kind, organization_id, payload FROM jobs")
    told: list[auth_service_pb2.AuditEntry] = []

    class Auth:
        async def AppendAuditEntries(self, request: auth_service_pb2.AppendAuditEntriesRequest) -> None:
            told.extend(request.entries)

    job = jobs.Job(
        job_id=row["job_id"],
        kind=row["kind"],
        organization_id=row["organization_id"],
        payload=json.loads(row["payload"]),
        attempt_count=1,
    )
    await Jobs(db=db, trail=AuditTrail(Auth()), clock=SystemClock()).handlers()[job.kind](job)  # type: ignore[arg-type]
    (entry,) = told
    assert (entry.organization_id, entry.action) == (str(OPERATOR), "dead_letter.dropped")
    assert (entry.resource, entry.actor) == (f"dead_letter/{letter.dead_letter_id}", f"account of {OPERATOR}")
    assert (entry.actor_kind, entry.address, bool(entry.request_id)) == ("service_account", "ipv4:127.0.0.1", True)
    assert (dict(entry.before), dict(entry.after)) == ({"state": "waiting"}, {"state": "dropped"})


async def tollway(running: Running, *arguments: str, token: str = ADMIN_TOKEN) -> tuple[int, str, str]:
    """Run the command line as an operator would."""
    where = ("--address", f"127.0.0.1:{running.port}", "--token", token, "--organization", str(OPERATOR))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "cli", "events", "dead-letters", *where, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def test_the_command_line_lists_shows_replays_and_drops(
    db: Database, ingester: Ingester, running: Running
) -> None:
    await unstorable_then_storable(db, ingester, 1)
    await bury(ingester, [payload(status=7)])
    status, output, _ = await tollway(running, "list", token=SUPPORT_TOKEN)
    good, bad = (line.split()[0] for line in output.splitlines())
    assert status == 0
    status, output, _ = await tollway(running, "show", bad)
    assert (status, json.loads(output)["event"]["status"], json.loads(output)["reason"]) == (
        0,
        7,
        "DEAD_LETTER_REASON_INVALID",
    )
    status, output, errors = await tollway(running, "replay", good, bad)
    assert (status, errors) == (1, "tollway: 1 of 2 dead letters are not replayed\n")
    assert (await tollway(running, "drop", bad))[0] == 0
    assert await tollway(running, "list") == (0, "", "There are no dead letters that are waiting.\n")
    assert (await stored(db))[:2] == (1, 2)
    status, _, errors = await tollway(running, "drop", bad, token=SUPPORT_TOKEN)
    assert status == 1
    assert errors.count("\n") == 1
    assert "PERMISSION_DENIED" in errors
