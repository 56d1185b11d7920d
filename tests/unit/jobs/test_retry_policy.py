"""Retries come later and later, spread out, and never so late that nobody waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.jobs import RetryPolicy


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_between_half_of_its_step_and_the_step(attempt_count: int, chance: float) -> None:
    policy = RetryPolicy(first_seconds=2.0, seconds_max=100.0, jitter=lambda: chance)
    step = min(100.0, 2.0 * 2.0 ** min(attempt_count - 1, 30))
    assert step / 2 <= policy.delay_seconds(attempt_count) <= step


def test_all_attempts_take_about_half_a_day() -> None:
    policy = RetryPolicy(jitter=lambda: 0.5)
    hours = sum(policy.delay_seconds(attempt) for attempt in range(1, policy.attempts_max)) / 3_600
    assert 4 < hours < 12
