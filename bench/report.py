"""Writes a benchmark's result as JSON in the one form that all benchmarks share, and prints it as a table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench import machine

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured quantity: the median of its runs, with the runs kept."""

    runs: Sequence[float]
    unit: str

    @property
    def value(self) -> float:
        """Return the median."""
        return statistics.median(self.runs)


def write(name: str, command: str, figures: Mapping[str, Figure], ratios: Mapping[str, float]) -> Path:
    """Record a result and print it.

    Args:
        name: The benchmark's name; also the file's.
        command: What to type to get it again.
        figures: What was measured, by name.
        ratios: Ours over another's, from the same run.
    """
    result = {
        "name": name,
        "command": command,
        "machine": machine.describe(),
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "figures": {
            key: {"value": round(figure.value, 3), "unit": figure.unit, "runs": [round(run, 3) for run in figure.runs]}
            for key, figure in figures.items()
        },
        "ratios": {key: round(ratio, 3) for key, ratio in ratios.items()},
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    width = max(len(key) for key in (*figures, *ratios))
    for key, figure in figures.items():
        spread = f"({min(figure.runs):,.2f} to {max(figure.runs):,.2f})"
        print(f"{key:<{width}}  {figure.value:>12,.2f} {figure.unit:<8} {spread}")
    for key, ratio in ratios.items():
        print(f"{key:<{width}}  {ratio:>12.3f}")
    print(f"recorded in {path.relative_to(RESULTS.parents[1])}")
    return path
