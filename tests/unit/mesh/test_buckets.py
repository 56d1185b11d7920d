"""A bucket gives what it holds and what has come back since, and no more."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from mesh.buckets import Buckets
from mesh.clock import ManualClock


def buckets_of(tokens, clock, **options):
    return Buckets(tokens, monotonic=clock.monotonic, **options)


@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.floats(0, 30), st.sampled_from(["take", "give_back", "look"])), max_size=80),
)
def test_no_more_is_taken_than_a_bucket_holds_and_regains(tokens, steps):
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    buckets, taken, passed_seconds, owed = buckets_of(tokens, clock, period_seconds=60), 0, 0.0, 0
    for seconds, step in steps:
        clock.advance(seconds)
        passed_seconds += seconds
        if step == "take":
            was_taken = buckets.take("a") == 0.0
            taken += was_taken
            owed += was_taken
        elif step == "give_back" and owed:
            buckets.give_back("a")
            owed -= 1
            taken -= 1
        else:
            assert buckets.wait_seconds("a") >= 0.0
    assert taken <= tokens + tokens * passed_seconds / 60 + 1e-6


def test_the_wait_that_is_told_is_enough():
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    buckets = buckets_of(3, clock)
    assert [buckets.take("a") for _ in range(3)] == [0.0] * 3
    wait_seconds = buckets.take("a")
    assert wait_seconds > 0.0
    clock.advance(wait_seconds + 1e-6)
    assert buckets.take("a") == 0.0


def test_a_full_bucket_is_not_remembered_and_one_can_owe():
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    buckets = buckets_of(1, clock)
    buckets.take("a")
    buckets.give_back("a")
    assert ("a" in buckets, len(buckets)) == (False, 0)
    for _ in range(3):
        buckets.spend("a")
    assert buckets.wait_seconds("a") == 180.0
