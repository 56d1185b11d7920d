"""Examples of a Hypothesis strategy for tests that are coroutines and set a lot up: drawn once, tried one by one."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, given, settings


def drawn(strategy: Any, count: int) -> list[Any]:
    """Returns the first examples of a strategy, the same in every run."""
    found: list[Any] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found
