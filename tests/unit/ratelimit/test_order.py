"""The order of decisions, with Redis' answers held back until the test lets them go: no clock, no timer decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from contract.calendar_windows import calendar_instant
from contract.windows import WindowScope
from mesh.redis import RedisUnavailable
from services.ratelimit.counters import FORGOTTEN, REFUSED, Answer, Call, Counters
from services.ratelimit.model import UnseededWindow
from services.ratelimit.policy_layout import lay_out
from services.ratelimit.rounds import Rounds
from services.ratelimit.seeding import Seeder
from tests.support.ratelimit import API_KEY, ORGANIZATION, OTHER_ORGANIZATION, bucket, month, policy

NOW = datetime(2026, 11, 21, 2, 7, tzinfo=UTC)
NEVER_SECONDS = 3_600
DECIDED = Answer(records=[])
UNSEEDED = Answer(unseeded=(UnseededWindow(key=1, window=2),))


@dataclass
class Line(Counters):
    """Redis at the end of one connection: takes what is written and answers in order, when it is told to."""

    written: list[tuple[str, list[str]]] = field(default_factory=list)
    waiting: list[asyncio.Future[list[Answer]]] = field(default_factory=list)
    # Answers that are there as soon as the next calls are written.
    at_once: list[Answer] = field(default_factory=list)

    async def run(self, calls: Sequence[Call], seed_first: Sequence[bool]) -> list[Answer]:
        return await self._write("run", calls)

    async def teach(self, calls: Sequence[Call], seed_first: Sequence[bool]) -> list[Answer]:
        return await self._write("teach", calls)

    async def _write(self, how: str, calls: Sequence[Call]) -> list[Answer]:
        self.written.append((how, [str(each.places[0]) if each.places else "seed" for each in calls]))
        answered: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        if self.at_once:
            answered.set_result([self.at_once.pop(0)])
            return await answered
        self.waiting.append(answered)
        return await answered

    async def answer(self, *answers: Answer) -> None:
        """Answers the oldest write, and lets everybody who heard it act."""
        self.waiting.pop(0).set_result(list(answers))
        await settled()

    async def answer_in_one_read(self, *answers: Answer) -> None:
        """Answers as many writes, of one call each, before anybody who hears it can act."""
        for answer in answers:
            self.waiting.pop(0).set_result([answer])
        await settled()


@dataclass
class Usage:
    """Metering, which answers when it is told to."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    questions: int = 0

    async def billable_units(
        self, organization_id: UUID, start_time: datetime, scope: WindowScope
    ) -> dict[bytes, Decimal]:
        self.questions += 1
        await self.gate.wait()
        return {}


@dataclass
class Asked:
    """What is under test, and the tasks that asked it, by the name of their batch."""

    rounds: Rounds
    line: Line
    usage: Usage
    tasks: dict[str, asyncio.Task[list[Answer]]] = field(default_factory=dict)

    async def ask(self, *organizations: UUID, name: int, test_mode: bool = False) -> None:
        calls = [call(organization, name, test_mode=test_mode) for organization in organizations]
        self.tasks[str(name)] = asyncio.create_task(self.rounds.ask(calls))
        await settled()

    @property
    def done(self) -> list[str]:
        return [name for name, task in self.tasks.items() if task.done()]


def call(organization: UUID, name: int, *, test_mode: bool) -> Call:
    limits = policy(bucket(10), month(100), organization_id=organization)
    made = Call(lay_out(limits), test_mode=test_mode, instant=calendar_instant(NOW))
    made.decide(name, API_KEY.bytes, "orders", 1)
    return made


async def settled() -> None:
    """Lets everything run that can run without anything else happening."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def asked() -> AsyncIterator[Asked]:
    async with asyncio.TaskGroup() as group:
        line, usage = Line(), Usage()
        seeder = Seeder(usage=usage, run=line.teach, tasks=group)
        made = Asked(
            rounds=Rounds(counters=line, seeder=seeder, seed_wait_seconds=NEVER_SECONDS), line=line, usage=usage
        )
        yield made
        for task in made.tasks.values():
            task.cancel()
        await settled()
        await seeder.stop()
        assert len(made.rounds._lanes) == 0


async def test_batches_behind_a_seeding_are_decided_in_the_order_in_which_they_came(asked: Asked) -> None:
    await asked.ask(ORGANIZATION, name=1)
    await asked.ask(ORGANIZATION, name=2)
    await asked.line.answer(UNSEEDED)
    await asked.ask(ORGANIZATION, name=3)
    await asked.line.answer(UNSEEDED)
    await asked.ask(ORGANIZATION, name=4)
    assert asked.line.written == [("run", ["1"]), ("run", ["2"])]
    asked.usage.gate.set()
    await settled()
    await asked.line.answer(DECIDED)
    assert asked.line.written[2:] == [("teach", ["seed"]), ("teach", ["1"]), ("teach", ["2"])]
    await asked.ask(ORGANIZATION, name=5)
    await asked.line.answer(DECIDED)
    await asked.line.answer(DECIDED)
    assert asked.line.written[5:] == [("run", ["3"]), ("run", ["4"]), ("run", ["5"])]
    assert asked.done == ["1", "2"]


async def test_a_batch_whose_answer_comes_together_with_the_seed_asks_metering_no_second_time(asked: Asked) -> None:
    asked.usage.gate.set()
    await asked.ask(ORGANIZATION, name=1)
    await asked.ask(ORGANIZATION, name=2)
    await asked.line.answer(UNSEEDED)
    assert asked.line.written[2:] == [("teach", ["seed"])]
    await asked.line.answer_in_one_read(UNSEEDED, DECIDED)
    assert asked.usage.questions == 1
    assert asked.line.written[3:] == [("teach", ["1"]), ("teach", ["2"])]


async def test_another_organization_does_not_wait_behind_a_seeding(asked: Asked) -> None:
    await asked.ask(ORGANIZATION, name=1)
    await asked.line.answer(UNSEEDED)
    await asked.ask(OTHER_ORGANIZATION, name=2)
    await asked.ask(ORGANIZATION, name=3, test_mode=True)
    await asked.line.answer(DECIDED)
    await asked.line.answer(DECIDED)
    assert asked.done == ["2", "3"]


async def test_a_batch_about_two_organizations_waits_in_the_lane_of_one_and_not_in_the_others(asked: Asked) -> None:
    await asked.ask(ORGANIZATION, OTHER_ORGANIZATION, name=1)
    await asked.line.answer(UNSEEDED, DECIDED)
    await asked.ask(OTHER_ORGANIZATION, ORGANIZATION, name=2)
    await asked.ask(OTHER_ORGANIZATION, name=3)
    assert asked.line.written == [("run", ["1", "1"]), ("run", ["2"]), ("run", ["3"])]
    await asked.line.answer(DECIDED)
    await asked.line.answer(DECIDED)
    assert asked.done == ["3"]


async def test_a_script_that_redis_forgot_changes_no_order(asked: Asked) -> None:
    await asked.ask(ORGANIZATION, name=1)
    await asked.ask(ORGANIZATION, name=2)
    await asked.line.answer(FORGOTTEN)
    await asked.ask(ORGANIZATION, name=3)
    await asked.line.answer(FORGOTTEN)
    assert asked.line.written == [("run", ["1"]), ("run", ["2"]), ("teach", ["1"]), ("teach", ["2"])]
    await asked.line.answer(DECIDED)
    await asked.line.answer(DECIDED)
    assert asked.line.written[4:] == [("run", ["3"])]


async def test_a_call_whose_turn_has_come_waits_again_behind_one_that_holds_the_lane_again(asked: Asked) -> None:
    await asked.ask(ORGANIZATION, name=1)
    await asked.line.answer(FORGOTTEN)
    for name in (2, 3, 4):
        await asked.ask(ORGANIZATION, name=name)
    asked.line.at_once = [FORGOTTEN]
    await asked.line.answer(DECIDED)
    assert asked.line.written[2:] == [("run", ["2"]), ("teach", ["2"])]
    asked.tasks["3"].cancel()
    await asked.line.answer(DECIDED)
    assert asked.line.written[4:] == [("run", ["4"])]


async def test_a_cancelled_batch_lets_those_behind_it_go_on(asked: Asked) -> None:
    await asked.ask(ORGANIZATION, name=1)
    await asked.line.answer(UNSEEDED)
    await asked.ask(ORGANIZATION, name=2)
    await asked.ask(ORGANIZATION, name=3)
    asked.tasks["2"].cancel()
    asked.tasks["1"].cancel()
    await settled()
    assert asked.line.written[1:] == [("run", ["3"])]


async def test_what_redis_refuses_lets_those_behind_it_go_on(asked: Asked) -> None:
    await asked.ask(ORGANIZATION, name=1)
    await asked.line.answer(FORGOTTEN)
    await asked.ask(ORGANIZATION, name=2)
    asked.line.waiting.pop(0).set_exception(RedisUnavailable("away"))
    await settled()
    assert asked.tasks["1"].result() == [REFUSED]
    assert asked.line.written[2:] == [("run", ["2"])]
