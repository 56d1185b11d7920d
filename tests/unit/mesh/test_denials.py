"""A flood of denials is counted, not written down: memory and batches have a bound, and nothing is counted twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.clock import SystemClock
from mesh.ids import RandomIds
from mesh.rpc import denials
from mesh.rpc.denials import KINDS_MAX, KINDS_PER_SOURCE_MAX, OTHERS, CountedDenial, Denial, Denials

REASONS = ["ROLE_INSUFFICIENT", "ORGANIZATION_NOT_FOUND"]
RECORDS_MAX = KINDS_MAX + len(REASONS)


def denial(actor: str, *, address: str = "a", reason: str = REASONS[0], resource: str = "rpc/x") -> Denial:
    return Denial(action="rpc.deny", source=actor, actor=actor, address=address, reason=reason, resource=resource)


class Taker:
    """Keeps what it is handed, fails where it is told to; the same id twice is kept once."""

    def __init__(self) -> None:
        self.taken: dict[Any, CountedDenial] = {}
        self.calls = 0
        self.failures_left = 0
        self.loses_answer = False

    async def take(self, batch: Sequence[CountedDenial]) -> None:
        self.calls += 1
        assert len(batch) <= RECORDS_MAX
        if self.failures_left:
            self.failures_left -= 1
            if self.loses_answer:
                self.taken.update({each.denial_id: each for each in batch})
            raise ConnectionError
        self.taken.update({each.denial_id: each for each in batch})

    @property
    def count(self) -> int:
        return sum(each.count for each in self.taken.values())


def counting(taker: Taker) -> Denials:
    return Denials(take=taker.take, clock=SystemClock(), ids=RandomIds())


NOTED = st.tuples(
    st.integers(0, 300).map(str),
    st.integers(0, 30).map(lambda number: f"198.51.100.{number}"),
    st.sampled_from(REASONS),
    st.integers(0, 30).map(lambda number: f"rpc/{number}"),
)


@given(st.lists(NOTED, max_size=400), st.integers(0, 3), st.booleans())
async def test_every_denial_is_counted_once_however_often_the_other_side_fails(
    noted: list[tuple[str, str, str, str]], failures: int, loses_answer: bool
) -> None:
    taker = Taker()
    taker.failures_left, taker.loses_answer = failures, loses_answer
    counter = counting(taker)
    for number, (actor, address, reason, resource) in enumerate(noted):
        counter.note(denial(actor, address=address, reason=reason, resource=resource))
        assert len(counter._pending) <= RECORDS_MAX
        if number % 50 == 0:
            try:
                await counter.write()
            except ConnectionError:
                assert len(counter._batch) <= RECORDS_MAX
    for _ in range(failures + 1):
        try:
            await counter.write()
        except ConnectionError:
            continue
    assert (taker.count, counter.waiting) == (len(noted), 0)


@given(st.integers(1, 60), st.integers(1, 60))
def test_one_source_has_a_bounded_share_however_it_varies_what_it_does(addresses: int, resources: int) -> None:
    counter = counting(Taker())
    for address in range(addresses):
        for resource in range(resources):
            counter.note(denial("noisy", address=str(address), resource=str(resource)))
    counter.note(denial("quiet", resource="rpc/quiet"))
    kinds = list(counter._pending)
    assert len(kinds) <= KINDS_PER_SOURCE_MAX + 2
    assert kinds[-1] == denial("quiet", resource="rpc/quiet")
    assert {each.actor for each in kinds} == {"noisy", "quiet"}


def test_sources_beyond_the_bound_share_a_record_without_names() -> None:
    counter = counting(Taker())
    for number in range(KINDS_MAX * 3):
        counter.note(denial(str(number)))
    *named, rest = counter._pending.values()
    assert len(named) == KINDS_MAX
    assert (rest.denial.actor, rest.denial.address, rest.count) == (OTHERS, OTHERS, KINDS_MAX * 2)


async def test_while_the_other_side_is_away_memory_does_not_grow_and_nothing_is_lost() -> None:
    taker = Taker()
    taker.failures_left = 20
    counter = counting(taker)
    noted = 0
    for _ in range(20):
        for number in range(1_000):
            counter.note(denial(str(number)))
            noted += 1
        with pytest.raises(ConnectionError):
            await counter.write()
        assert len(counter._pending) + len(counter._batch) <= 2 * RECORDS_MAX
    await counter.write()
    assert (taker.count, counter.waiting) == (noted, 0)


async def test_the_background_hands_on_soon_and_again_after_a_failure_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(denials, "DELAY_SECONDS", 0.0)
    monkeypatch.setattr(denials, "INTERVAL_SECONDS", 0.01)
    taker = Taker()
    taker.failures_left = 1
    counter, stopping = counting(taker), asyncio.Event()
    running = asyncio.create_task(counter.run(stopping))
    counter.note(denial("first"))
    async with asyncio.timeout(60):
        while not taker.taken:
            await asyncio.sleep(0.005)
    assert taker.calls == 2
    counter.note(denial("last"))
    stopping.set()
    await running
    assert [each.denial.actor for each in taker.taken.values()] == ["first", "last"]


async def test_nothing_is_handed_on_while_nothing_is_denied() -> None:
    taker = Taker()
    counter, stopping = counting(taker), asyncio.Event()
    running = asyncio.create_task(counter.run(stopping))
    await asyncio.sleep(0)
    stopping.set()
    await running
    await counter.write()
    assert taker.calls == 0
