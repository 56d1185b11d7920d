"""Ids are UUIDv7 (RFC 9562 section 5.7): sortable by time, so indexes stay compact.

`RandomIds` uses method 1 of section 6.2: within one millisecond a counter keeps ids of one process in order. The
counter starts at a random value each millisecond and lives in `rand_a` and the upper bits of `rand_b`, which leaves
50 random bits in every id.

**A clock that is set back.** After a small step the ids stay in the last millisecond, so that their order holds. They
never lead the clock by more than `LEAD_MS_MAX`: after a larger step they follow the clock back. The order is given up
then, because an id that claims to come from the future is worse: it is refused or distrusted wherever time is checked.
A millisecond may then be used a second time. Its ids stay apart by the counter's random start and the random bits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, Protocol
from uuid import UUID

LEAD_MS_MAX: Final = 10_000

_COUNTER_BITS: Final = 24
_COUNTER_START_BITS: Final = 20
_RANDOM_BITS: Final = 50
_VERSION_AND_VARIANT: Final = (7 << 76) | (2 << 62)


class IdSource(Protocol):
    """Where new ids come from."""

    def uuid7(self) -> UUID:
        """Return a new id, greater than those before it unless the clock was set back by more than `LEAD_MS_MAX`."""
        ...

    def uuid7_bytes(self) -> bytes:
        """Return a new id as 16 bytes."""
        ...


class RandomIds:
    """UUIDv7 from the machine's clock and random source.

    Args:
        now_ns: Unix time in nanoseconds.
    """

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._now_ns = now_ns
        self._last_ms = 0
        self._counter = 0

    def uuid7(self) -> UUID:
        """Return a new id."""
        return UUID(int=self._next())

    def uuid7_bytes(self) -> bytes:
        """Return a new id as 16 bytes, without the cost of a UUID object."""
        return self._next().to_bytes(16, "big")

    def _next(self) -> int:
        random_value = int.from_bytes(os.urandom(10), "big")
        now_ms = self._now_ns() // 1_000_000
        if now_ms > self._last_ms or now_ms < self._last_ms - LEAD_MS_MAX:
            self._last_ms = now_ms
            self._counter = random_value >> (80 - _COUNTER_START_BITS)
        else:
            # The clock stands still or went back a little: stay in the last millisecond, so that the order holds.
            self._counter += 1
            if self._counter >> _COUNTER_BITS:
                self._last_ms += 1
                self._counter = 0
        high, low = self._counter >> 12, self._counter & 0xFFF
        random_part = random_value & ((1 << _RANDOM_BITS) - 1)
        return (self._last_ms << 80) | _VERSION_AND_VARIANT | (high << 64) | (low << _RANDOM_BITS) | random_part


class SequenceIds:
    """Ids that count up from one; for tests."""

    def __init__(self) -> None:
        self._value = 0

    def uuid7(self) -> UUID:
        """Return the next id."""
        self._value += 1
        return UUID(int=_VERSION_AND_VARIANT | self._value)

    def uuid7_bytes(self) -> bytes:
        """Return the next id as bytes."""
        return self.uuid7().bytes
