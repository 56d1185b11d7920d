"""What a worker counts. Plain numbers in dictionaries: an observation on the request's path costs one addition.

A worker reports all of them to the supervisor (`snapshot`), which adds the workers up and prints Prometheus' text
format. Labels are bounded: route ids come from the routes file, outcomes from the contract, problems from this package.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from typing import Any, Final

from tollway.events.v1 import usage_event_pb2 as events

LATENCY_BUCKETS_SECONDS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
_OUTCOMES: Final[dict[int, str]] = {
    value: name.removeprefix("OUTCOME_").lower() for name, value in events.Outcome.items()
}


class Histogram:
    """Counts per bucket, and the sum."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BUCKETS_SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(LATENCY_BUCKETS_SECONDS, seconds)] += 1
        self.total += seconds


class WorkerMetrics:
    """Everything that one worker counts."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, int, int], int] = defaultdict(int)
        self._latency: dict[str, Histogram] = defaultdict(Histogram)
        self.decision_latency = Histogram()
        self.problems: dict[str, int] = defaultdict(int)
        self.counters: dict[str, int] = defaultdict(int)
        self.gauges: dict[str, float] = {}

    def request(self, route_id: str, status: int, outcome: int, seconds: float) -> None:
        """Count one request."""
        self._requests[route_id, status // 100, outcome] += 1
        self._latency[route_id].observe(seconds)

    def snapshot(self) -> dict[str, Any]:
        """Return all numbers in a form that goes through JSON: lists of name, labels and value."""
        counters: list[tuple[str, dict[str, str], float]] = [
            (
                "tollway_edge_requests_total",
                {"route": route, "status": f"{status}xx", "outcome": _OUTCOMES.get(outcome, "unknown")},
                count,
            )
            for (route, status, outcome), count in self._requests.items()
        ]
        counters += [("tollway_edge_problems_total", {"problem": name}, count) for name, count in self.problems.items()]
        counters += [(f"tollway_edge_{name}_total", {}, count) for name, count in self.counters.items()]
        histograms = [
            ("tollway_edge_request_duration_seconds", {"route": route}, histogram.counts, histogram.total)
            for route, histogram in self._latency.items()
        ]
        histograms.append(
            ("tollway_edge_decision_duration_seconds", {}, self.decision_latency.counts, self.decision_latency.total)
        )
        gauges: list[tuple[str, dict[str, str], float]] = [
            (f"tollway_edge_{name}", {}, value) for name, value in self.gauges.items()
        ]
        return {"counters": counters, "histograms": histograms, "gauges": gauges}
