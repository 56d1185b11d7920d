"""Adds up what workers report and prints it as Prometheus text (exposition format 0.0.4).

Counters and histograms of workers that are gone stay in the sum, so that they never go back. Gauges are summed over the
workers that live, except for lags, where the largest counts.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any, Final

from edge_proxy.process.metrics import LATENCY_BUCKETS_SECONDS

# Of what is the same for all workers, or would mean nothing as a sum.
_LARGEST: Final = frozenset({"tollway_edge_event_loop_lag_seconds", "tollway_edge_journal_quarantined_files"})
_Key = tuple[str, str]


class Exposition:
    """The sum over all workers, living and gone."""

    def __init__(self) -> None:
        self._counters: dict[_Key, float] = defaultdict(float)
        self._histograms: dict[_Key, list[float]] = {}

    def count(self, name: str) -> None:
        """Count something of the supervisor's own."""
        self._counters[name, ""] += 1

    def retire(self, metrics: dict[str, Any]) -> None:
        """Keep the last numbers of a worker that has ended."""
        _add(metrics, self._counters, self._histograms)

    def text(self, reports: list[dict[str, Any]], workers: int) -> str:
        """Return everything as text."""
        counters = defaultdict(float, self._counters)
        histograms = {key: list(values) for key, values in self._histograms.items()}
        gauges: dict[_Key, float] = {("tollway_edge_workers", ""): workers}
        for report in reports:
            _add(report, counters, histograms)
            for name, labels, value in report.get("gauges", []):
                key = (name, _labels(labels))
                before = gauges.get(key, 0.0)
                gauges[key] = max(before, value) if name in _LARGEST else before + value
        lines: list[str] = []
        _print(lines, "counter", counters)
        _print(lines, "gauge", gauges)
        _print_histograms(lines, histograms)
        return "\n".join(lines) + "\n"


def _add(report: dict[str, Any], counters: dict[_Key, float], histograms: dict[_Key, list[float]]) -> None:
    for name, labels, value in report.get("counters", []):
        counters[name, _labels(labels)] += value
    for name, labels, counts, total in report.get("histograms", []):
        held = histograms.setdefault((name, _labels(labels)), [0.0] * (len(counts) + 1))
        for index, value in enumerate((*counts, total)):
            held[index] += value


def _labels(labels: dict[str, str]) -> str:
    return ",".join(f"{name}={json.dumps(value)}" for name, value in sorted(labels.items()))


def _print(lines: list[str], kind: str, values: dict[_Key, float]) -> None:
    last = ""
    for (name, labels), value in sorted(values.items()):
        if name != last:
            lines.append(f"# TYPE {name} {kind}")
            last = name
        lines.append(f"{name}{{{labels}}} {value!r}" if labels else f"{name} {value!r}")


def _print_histograms(lines: list[str], histograms: dict[_Key, list[float]]) -> None:
    last = ""
    for (name, labels), values in sorted(histograms.items()):
        if name != last:
            lines.append(f"# TYPE {name} histogram")
            last = name
        separator = "," if labels else ""
        running = 0.0
        for bound, count in zip((*LATENCY_BUCKETS_SECONDS, "+Inf"), values[:-1], strict=True):
            running += count
            lines.append(f'{name}_bucket{{{labels}{separator}le="{bound}"}} {running:.0f}')
        suffix = f"{{{labels}}}" if labels else ""
        lines.append(f"{name}_sum{suffix} {values[-1]!r}")
        lines.append(f"{name}_count{suffix} {running:.0f}")
