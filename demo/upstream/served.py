"""What this upstream served, by the request id that the edge sends.

A test that kills the edge compares three parties: what clients got, what was billed, and what the upstream saw. This
is the third. A request is recorded when its handling starts and again when its answer was written completely. The
optional log outlives a crash of this process too: one `write` per line, appended.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

REQUEST_IDS_MAX: Final = 200_000


class Served:
    """Counts requests by id; memory is bounded by `request_ids_max`, the oldest ids go first.

    Args:
        log_path: Where a line per start and per answer is appended; None for nowhere.
        request_ids_max: How many ids are remembered.
    """

    def __init__(self, *, log_path: Path | None = None, request_ids_max: int = REQUEST_IDS_MAX) -> None:
        self._log = (
            os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644) if log_path else None
        )
        self._request_ids_max = request_ids_max
        self._started: dict[str, int] = {}
        self._answered: dict[str, int] = {}
        self._started_count = 0
        self._answered_count = 0
        self._dropped_count = 0

    def started(self, request_id: str, method: str, path: str) -> None:
        """Record that a request's handling starts."""
        self._started_count += 1
        self._bump(self._started, request_id)
        self._append("started", request_id, method, path)

    def answered(self, request_id: str, status: int) -> None:
        """Record that a request's answer was written to its end."""
        self._answered_count += 1
        self._bump(self._answered, request_id)
        self._append("answered", request_id, str(status))

    def as_json(self) -> dict[str, object]:
        """Return the counts; requests without an id are in the totals only."""
        return {
            "count": self._started_count,
            "answered_count": self._answered_count,
            "dropped_count": self._dropped_count,
            "by_request_id": self._started,
            "answered_by_request_id": self._answered,
        }

    def reset(self) -> None:
        """Forgets everything; the log stays as it is."""
        self._started.clear()
        self._answered.clear()
        self._started_count = self._answered_count = self._dropped_count = 0

    def _bump(self, counts: dict[str, int], request_id: str) -> None:
        if not request_id:
            return
        counts[request_id] = counts.get(request_id, 0) + 1
        if len(counts) > self._request_ids_max:
            del counts[next(iter(counts))]
            self._dropped_count += 1

    def _append(self, *fields: str) -> None:
        if self._log is not None:
            line = "\t".join(field.replace("\t", " ") for field in fields)
            os.write(self._log, line.encode() + b"\n")
