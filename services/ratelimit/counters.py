"""Asks Redis: turns the decisions of one organization into one call of decide.lua and its answer into verdicts.

A batch is one write to Redis, whatever number of organizations it holds, and one script call per organization and mode.
`Call` gathers what goes into one of them; keys are named once per call and decisions refer to them by number.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, TypeAlias

import hiredis
import structlog
from prometheus_client import Counter

from contract.calendar_windows import CalendarInstant, calendar_instant_of
from contract.windows import WindowScope, lua_constants
from mesh.redis import Command, RedisPipe, Reply
from services.ratelimit.model import Seed, UnseededWindow
from services.ratelimit.policy_layout import PolicyLayout, TtlBase

SCRIPT: Final = lua_constants() + resources.files(__package__).joinpath("decide.lua").read_text(encoding="utf-8")
SCRIPT_SHA: Final = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
GIVE_BACK_GENERATION_US: Final = 900_000_000
TTL_MARGIN_MS: Final = 1_000
US_PER_MS: Final = 1_000
CALENDAR_TTL_MARGIN_MS: Final = 86_400_000

_DECISION: Final = struct.Struct("<HHI")
_GIVE_BACK: Final = struct.Struct("<HHIdd16s")
_SEED: Final = struct.Struct("<HHdd")
_UNSEEDED: Final = struct.Struct("<HH")
_CONTEXT: Final = struct.Struct("<BBddddddddd")
_SEED_FIRST, _OUTDATED, _AHEAD = 1, 2, 3
_SCOPE_ORGANIZATION, _SCOPE_API_KEY, _SCOPE_ROUTE = b"\x01", b"\x02", b"\x03"

_FENCED: Final = Counter("tollway_ratelimit_fenced_total", "Calls that decided nothing", ["reason"])
_SCRIPT_ERRORS: Final = Counter("tollway_ratelimit_script_errors_total", "Script calls that Redis refused")

log = structlog.get_logger()

Record: TypeAlias = tuple[Any, ...]
"""kind, denied_by, retry_after_ms, remaining per window, reset_ms per window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What Redis said to a call: a record per decision, or what must happen first; neither where it refused.

    Args:
        records: The decisions.
        unseeded: Windows to seed first.
        is_forgotten: Whether Redis must be taught the script first.
        is_outdated: Whether another replica has decided by a newer policy.
    """

    records: list[Record] | None = None
    unseeded: tuple[UnseededWindow, ...] = ()
    is_forgotten: bool = False
    is_outdated: bool = False

    @property
    def is_final(self) -> bool:
        """Tell whether nothing else must happen first."""
        return not (self.unseeded or self.is_forgotten)


REFUSED: Final = Answer()
FORGOTTEN: Final = Answer(is_forgotten=True)
OUTDATED: Final = Answer(is_outdated=True)


class Call:
    """What one organization wants from Redis, in one mode.

    Args:
        layout: The policy in force.
        test_mode: Whether it is about test keys' counters.
        instant: What calendar windows are chosen by.
        system_ms: This process's own Unix time in milliseconds, where it is not the instant's: an organization's
            clock may be moved.
    """

    __slots__ = (
        "_decisions",
        "_give_backs",
        "_key_numbers",
        "_keys",
        "_prefix",
        "_scopes",
        "_seeds",
        "_system_ms",
        "instant",
        "layout",
        "places",
        "test_mode",
    )

    def __init__(
        self, layout: PolicyLayout, *, test_mode: bool, instant: CalendarInstant, system_ms: int | None = None
    ) -> None:
        self.layout = layout
        self.test_mode = test_mode
        self.instant = instant
        self._system_ms = instant.time_us // US_PER_MS if system_ms is None else system_ms
        # Where in the batch each decision stood.
        self.places: list[int] = []
        self._prefix = layout.test_prefix if test_mode else layout.live_prefix
        self._keys: list[bytes] = []
        self._scopes = bytearray()
        self._key_numbers: dict[bytes, int] = {}
        self._decisions = bytearray()
        self._give_backs = bytearray()
        self._seeds = bytearray()
        if layout.scoped[0]:
            self._number(_SCOPE_ORGANIZATION, self._prefix + b"o")

    def decide(self, place: int, api_key_id: bytes, route_id: str, cost_units: int) -> None:
        """Add a decision; its verdict belongs at `place`."""
        self.places.append(place)
        self._decisions += _DECISION.pack(self._api_key(api_key_id), self._route(route_id), cost_units)

    def give_back(
        self, request_id: bytes, api_key_id: bytes, route_id: str, cost_units: int, calendar_time_us: int
    ) -> None:
        """Add units to give back to the windows that they were taken from."""
        taken_at = calendar_instant_of(calendar_time_us)
        self._give_backs += _GIVE_BACK.pack(
            self._api_key(api_key_id), self._route(route_id), cost_units, taken_at.day, taken_at.month, request_id
        )

    @property
    def has_give_backs(self) -> bool:
        """Tell whether there are units to give back."""
        return bool(self._give_backs)

    def seed_named(self, name: bytes, scope: WindowScope, seed: Seed) -> None:
        """Add what metering has counted in a window of the instance that `key_name` named."""
        key = self._number(bytes((scope,)), self._prefix + name)
        self._seeds += _SEED.pack(key, seed.window, seed.window_id, seed.used)

    def counted_windows(self) -> list[UnseededWindow]:
        """Return the windows that count billable requests, of every instance that this call is about."""
        return [
            UnseededWindow(key=key, window=number)
            for number, window in enumerate(self.layout.policy.windows, 1)
            if window.counts_billable_only
            for key, scope in enumerate(self._scopes, 1)
            if scope == window.scope
        ]

    def key_name(self, key: int) -> bytes:
        """Return the part of a numbered key behind the organization and mode: `o`, `k` + key, `r` + route."""
        return self._keys[key - 1][len(self._prefix) :]

    def arguments(self, *, seed_first: bool) -> Command:
        """Return the script's keys and arguments, as they follow its name."""
        back_keys = self._generation_keys() if self._give_backs else ()
        instant, layout = self.instant, self.layout
        context = _CONTEXT.pack(
            seed_first,
            layout.window_count,
            layout.policy.version,
            self._system_ms,
            instant.day,
            instant.month,
            instant.day_left_ms,
            instant.month_left_ms,
            *[_ttl_ms(base, instant) for base in layout.ttl_bases],
        )
        return (
            len(self._keys) + len(back_keys),
            *self._keys,
            *back_keys,
            layout.spec,
            layout.spec_format,
            *layout.headers,
            *layout.formats,
            context,
            bytes(self._scopes),
            bytes(self._decisions),
            bytes(self._give_backs),
            bytes(self._seeds),
        )

    def _generation_keys(self) -> tuple[bytes, bytes]:
        # Fixed at first use: a call that is repeated after seeding must meet the same sets.
        generation = self.instant.time_us // GIVE_BACK_GENERATION_US
        return self._prefix + b"g%d" % generation, self._prefix + b"g%d" % (generation - 1)

    def _api_key(self, api_key_id: bytes) -> int:
        return self._number(_SCOPE_API_KEY, self._prefix + b"k" + api_key_id) if self.layout.scoped[1] else 0

    def _route(self, route_id: str) -> int:
        return self._number(_SCOPE_ROUTE, self._prefix + b"r" + route_id.encode()) if self.layout.scoped[2] else 0

    def _number(self, scope: bytes, key: bytes) -> int:
        number = self._key_numbers.get(key)
        if number is None:
            self._keys.append(key)
            self._scopes += scope
            number = self._key_numbers[key] = len(self._keys)
        return number


class Counters:
    """The counters in Redis.

    Args:
        pipe: The way there; its greeting must be `greeting`.
    """

    def __init__(self, pipe: RedisPipe) -> None:
        self._pipe = pipe

    async def run(self, calls: Sequence[Call], seed_first: Sequence[bool]) -> list[Answer]:
        """Run calls in one round trip. They are written before anything is awaited.

        Args:
            calls: One per organization and mode.
            seed_first: Per call, whether to decide nothing where a calendar window's count is not known.

        Returns:
            The answers, in the order of the calls.

        Raises:
            RedisUnavailable: Redis is away or too slow; whether units were taken is not known.
        """
        return await self._run(("EVALSHA", SCRIPT_SHA), calls, seed_first)

    async def teach(self, calls: Sequence[Call], seed_first: Sequence[bool]) -> list[Answer]:
        """Run calls as `run` does, and give Redis the script with them: after SCRIPT FLUSH or a failover."""
        return await self._run(("EVAL", SCRIPT), calls, seed_first)

    async def _run(self, how: Command, calls: Sequence[Call], seed_first: Sequence[bool]) -> list[Answer]:
        replies = await self._pipe.call(
            [(*how, *call.arguments(seed_first=first)) for call, first in zip(calls, seed_first, strict=True)],
            [call.layout.live_prefix for call in calls],
        )
        return [_read(call, reply) for call, reply in zip(calls, replies, strict=True)]


def greeting() -> list[Command]:
    """Return what a new connection to Redis says first: the script."""
    return [("SCRIPT", "LOAD", SCRIPT)]


def _ttl_ms(base: TtlBase, instant: CalendarInstant) -> int:
    """Return how long a scope's value matters: until its buckets are full and a day beyond its calendar windows."""
    bucket_ms, has_day, has_month = base
    return max(
        bucket_ms + TTL_MARGIN_MS,
        instant.day_left_ms + CALENDAR_TTL_MARGIN_MS if has_day else 0,
        instant.month_left_ms + CALENDAR_TTL_MARGIN_MS if has_month else 0,
    )


def _is_forgotten(reply: Reply) -> bool:
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT")


def _read(call: Call, reply: Reply) -> Answer:
    if not isinstance(reply, bytes):
        if _is_forgotten(reply):
            return FORGOTTEN
        _SCRIPT_ERRORS.inc()
        log.error("script_refused", detail=repr(reply))
        return REFUSED
    if reply[0] == _SEED_FIRST:
        unseeded = _UNSEEDED.iter_unpack(reply[1:])
        return Answer(unseeded=tuple(UnseededWindow(key=key, window=window) for key, window in unseeded))
    if reply[0] == _OUTDATED:
        _FENCED.labels("policy").inc()
        return OUTDATED
    if reply[0] == _AHEAD:
        _FENCED.labels("clock").inc()
        log.error("clock_ahead", detail="this process's clock is ahead of Redis' by more than a minute")
        return REFUSED
    return Answer(records=list(call.layout.record.iter_unpack(reply[1:])))
