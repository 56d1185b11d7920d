"""decide.lua against a reference model in plain Python, on Redis 6.2 (the wheel's) and on what the machine has.

The script's clock is replaced by one that the test moves; everything else is what runs in production.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from uuid import UUID

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.stack.ports import free_ports
from contract import windows
from contract.calendar_windows import calendar_instant_of
from contract.windows import Window, WindowKind, WindowScope
from services.ratelimit.counters import OUTDATED, REFUSED, SCRIPT, Answer, Call, _read
from services.ratelimit.model import Policy, Seed
from services.ratelimit.policy_layout import lay_out
from tests.support.ratelimit import API_KEY, bucket, day, month, policy, sliding
from tests.support.redis_versions import SERVERS, running_redis_of

OTHER_KEY = UUID("01900000-0000-7000-8000-0000000000ab")
START_MS = 1_790_000_000_000
SCRIPT_WITH_MOVED_CLOCK = SCRIPT.replace("call('TIME')", "{ARGV[14], ARGV[15]}")
ALLOWED, DENIED = 1, 2


@pytest.fixture(scope="module", params=sorted(SERVERS))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    (port,) = free_ports(1)
    with running_redis_of(request.param, tmp_path_factory.mktemp("redis"), port) as client:
        yield client


@dataclass
class Limiter:
    """One organization's counters and a clock that stands until it is moved."""

    client: redis.Redis
    in_force: Policy
    now_ms: int = START_MS
    calendar_skew_ms: int = 0
    system_skew_ms: int = 0
    backs: list[tuple[bytes, int, int]] = field(default_factory=list)

    def call(self) -> Call:
        instant = calendar_instant_of((self.now_ms + self.calendar_skew_ms) * 1000)
        system_ms = self.now_ms + self.system_skew_ms
        return Call(lay_out(self.in_force), test_mode=False, instant=instant, system_ms=system_ms)

    def run(self, call: Call, *, seed_first: bool = False) -> Answer:
        time = (str(self.now_ms // 1000), str(self.now_ms % 1000 * 1000))
        reply = self.client.eval(SCRIPT_WITH_MOVED_CLOCK, *call.arguments(seed_first=seed_first), *time)
        return _read(call, reply)

    def decide(self, *costs: int, key: UUID = API_KEY, route_id: str = "orders") -> list[tuple[int, ...]]:
        call = self.call()
        for place, cost in enumerate(costs):
            call.decide(place, key.bytes, route_id, cost)
        records = self.run(call).records
        assert records is not None
        return records

    def give_back(self, request_id: bytes, cost: int, taken_at_ms: int, key: UUID = API_KEY) -> None:
        call = self.call()
        call.give_back(request_id, key.bytes, "orders", cost, taken_at_ms * 1000)
        self.run(call)

    def remaining(self) -> list[int]:
        """What is left, seen by a request that is too expensive for anything."""
        (record,) = self.decide(2**31)
        assert record[0] == DENIED
        return list(record[3 : 3 + len(self.in_force.windows)])


@pytest.fixture
def limiter(server: redis.Redis) -> Limiter:
    server.flushall()
    return Limiter(client=server, in_force=policy(bucket(3), month(100)))


def test_the_clock_is_really_replaced() -> None:
    assert "call('TIME')" in SCRIPT
    assert "call('TIME')" not in SCRIPT_WITH_MOVED_CLOCK


def test_a_refused_request_takes_nothing_from_any_window(limiter: Limiter) -> None:
    limiter.in_force = policy(bucket(3), month(100), bucket(50, scope=WindowScope.API_KEY, name="key"))
    assert [record[0] for record in limiter.decide(2, 2, 1)] == [ALLOWED, DENIED, ALLOWED]
    assert limiter.remaining() == [0, 97, 47]


def test_the_window_that_takes_longest_is_named(limiter: Limiter) -> None:
    limiter.in_force = policy(bucket(3), month(2), day(2))
    limiter.decide(2)
    (record,) = limiter.decide(2)
    instant = calendar_instant_of(limiter.now_ms * 1000)
    assert (record[0], record[1], record[2]) == (DENIED, 1, instant.month_left_ms)


def test_keys_and_routes_have_windows_of_their_own(limiter: Limiter) -> None:
    limiter.in_force = policy(
        bucket(1, scope=WindowScope.API_KEY, name="key"), bucket(2, scope=WindowScope.ROUTE, name="route")
    )
    assert [limiter.decide(1, key=key)[0][0] for key in (API_KEY, API_KEY, OTHER_KEY)] == [ALLOWED, DENIED, ALLOWED]
    assert limiter.decide(1, key=UUID(int=7))[0][:2] == (DENIED, 1)
    assert limiter.decide(1, key=UUID(int=7), route_id="other")[0][0] == ALLOWED


@pytest.mark.parametrize("cost", [1, 3, 7])
def test_a_bucket_has_room_exactly_when_it_said(limiter: Limiter, cost: int) -> None:
    limiter.in_force = policy(bucket(7, period_seconds=60))
    limiter.decide(7)
    (refused,) = limiter.decide(cost)
    limiter.now_ms += refused[2] - 1
    assert limiter.decide(cost)[0][0] == DENIED
    limiter.now_ms += 1
    assert limiter.decide(cost)[0][0] == ALLOWED


def test_a_cost_that_never_fits_is_refused_with_a_number_that_can_be_read(limiter: Limiter) -> None:
    limiter.in_force = policy(bucket(1, period_seconds=31 * 86_400))
    (record,) = limiter.decide(2**32 - 1)
    assert (record[0], record[2]) == (DENIED, 2**53 - 1)


def test_units_go_back_once_and_only_into_their_own_month(limiter: Limiter) -> None:
    limiter.decide(1, 1)
    taken_at_ms = limiter.now_ms
    for _ in range(2):
        limiter.give_back(b"a" * 16, 1, taken_at_ms)
    assert limiter.remaining() == [1, 99]
    limiter.now_ms += 14 * 60_000  # the next generation of remembered ids
    limiter.give_back(b"a" * 16, 1, taken_at_ms)
    assert limiter.remaining() == [3, 99]
    limiter.now_ms += 40 * 86_400_000
    limiter.decide(1)
    limiter.give_back(b"b" * 16, 1, taken_at_ms)
    assert limiter.remaining()[1] == 99


def test_what_is_given_back_never_exceeds_what_was_taken(limiter: Limiter) -> None:
    limiter.decide(1)
    limiter.give_back(b"a" * 16, 5, limiter.now_ms)
    assert limiter.remaining()[1] == 100


def test_a_replica_whose_clock_is_behind_does_not_empty_the_new_day(limiter: Limiter) -> None:
    limiter.in_force = policy(day(10))
    limiter.now_ms = (limiter.now_ms // 86_400_000 + 1) * 86_400_000 + 5
    limiter.decide(4)
    limiter.calendar_skew_ms = -10
    assert limiter.decide(1)[0][3] == 5
    limiter.calendar_skew_ms = 0
    assert limiter.remaining() == [5]


MONTH_MS = 31 * 86_400_000


@pytest.mark.parametrize("is_known", [True, False])
def test_a_replica_whose_clock_is_a_month_ahead_starts_no_month(limiter: Limiter, *, is_known: bool) -> None:
    limiter.in_force = policy(month(10))
    if is_known:
        limiter.decide(8)
    limiter.calendar_skew_ms = limiter.system_skew_ms = MONTH_MS
    ahead = limiter.call()
    ahead.decide(0, API_KEY.bytes, "orders", 1)
    assert limiter.run(ahead) == REFUSED
    limiter.calendar_skew_ms = limiter.system_skew_ms = 0
    assert limiter.remaining() == [2 if is_known else 10]


def test_the_clock_of_one_organization_may_be_moved(limiter: Limiter) -> None:
    limiter.in_force = policy(month(10))
    limiter.decide(8)
    limiter.calendar_skew_ms = MONTH_MS
    assert limiter.remaining() == [10]


def test_a_replica_with_an_older_policy_decides_nothing_and_drops_nothing(limiter: Limiter) -> None:
    older = policy(bucket(50), version=1)
    newer = policy(bucket(50), day(20), version=2)
    limiter.in_force = newer
    limiter.decide(20)
    limiter.in_force = older
    call = limiter.call()
    call.decide(0, API_KEY.bytes, "orders", 1)
    assert limiter.run(call) == OUTDATED
    limiter.in_force = newer
    assert limiter.remaining() == [30, 0]


def test_windows_are_carried_over_to_the_next_policy_by_name(limiter: Limiter) -> None:
    limiter.in_force = policy(bucket(60), month(1_000))
    limiter.decide(20)
    limiter.in_force = policy(month(500), bucket(300, period_seconds=30), day(10, name="new"), version=2)
    assert limiter.remaining() == [480, 280, 10]
    limiter.in_force = policy(bucket(5, period_seconds=30), version=3)
    assert limiter.decide(1)[0][0] == DENIED


def test_nothing_is_decided_before_a_quota_is_seeded_and_a_seed_only_raises(limiter: Limiter) -> None:
    limiter.in_force = policy(bucket(50), month(100))
    call = limiter.call()
    call.decide(0, API_KEY.bytes, "orders", 1)
    assert [(each.key, each.window) for each in limiter.run(call, seed_first=True).unseeded] == [(1, 2)]
    assert limiter.decide(3)[0][3:5] == (47, 97)
    for used, left in ((40, 60), (30, 60), (80, 20)):
        seeding = limiter.call()
        seeding.seed_named(b"o", WindowScope.ORGANIZATION, Seed(window=2, window_id=seeding.instant.month, used=used))
        limiter.run(seeding)
        assert limiter.remaining() == [47, left]
    again = limiter.call()
    again.decide(0, API_KEY.bytes, "orders", 1)
    assert limiter.run(again, seed_first=True).records is not None


def test_the_next_month_starts_at_zero_without_being_seeded(limiter: Limiter) -> None:
    limiter.decide(3)
    limiter.now_ms += 32 * 86_400_000
    call = limiter.call()
    call.decide(0, API_KEY.bytes, "orders", 1)
    seeding = limiter.run(call, seed_first=True)
    assert seeding.unseeded == ()
    assert limiter.remaining() == [2, 99]


def test_state_expires(limiter: Limiter) -> None:
    limiter.in_force = policy(bucket(3, period_seconds=60))
    limiter.decide(1)
    (key,) = limiter.client.keys("*")
    assert 60_000 <= limiter.client.pttl(key) <= 61_000


def test_every_number_that_is_kept_is_an_integer(limiter: Limiter) -> None:
    limiter.in_force = policy(bucket(7, period_seconds=11), month(100), day(50))
    for pause_ms in (1, 13, 999, 7):
        limiter.now_ms += pause_ms
        limiter.decide(1, 2)
        (key,) = limiter.client.keys("*o")
        value = limiter.client.get(key)
        header = lay_out(limiter.in_force).headers[0]
        numbers = struct.unpack(f"<{(len(value) - len(header)) // 8}d", value[len(header) :])
        assert all(number == int(number) for number in numbers), numbers


def test_what_the_script_says_is_what_the_contract_computes(limiter: Limiter) -> None:
    window = bucket(7, period_seconds=11)
    limiter.in_force, debt = policy(window), 0
    for pause_ms, cost in ((0, 1), (3, 5), (1_500, 2), (900, 7), (20_000, 4), (1, 4)):
        limiter.now_ms += pause_ms
        debt = windows.debt_after(debt, window.limit, window.period_ms, pause_ms)
        wait_ms = windows.bucket_wait_ms(debt, window.limit, window.period_ms, cost)
        debt += 0 if wait_ms else cost * window.period_ms
        (record,) = limiter.decide(cost)
        assert record == (
            DENIED if wait_ms else ALLOWED,
            0,
            wait_ms,
            windows.bucket_left(debt, window.limit, window.period_ms),
            windows.bucket_whole_ms(debt, window.limit),
        )


@pytest.mark.parametrize(
    ("window", "left"), [(bucket(100, 100), 15), (sliding(100, 100), 10)], ids=["bucket", "sliding"]
)
def test_a_clock_that_swings_refills_nothing_twice(limiter: Limiter, window: Window, left: int) -> None:
    limiter.in_force = policy(window)
    limiter.decide(50)
    for _ in range(20):
        for step_ms in (5_000, -5_000):
            limiter.now_ms += step_ms
            assert limiter.decide(1)[0][0] == ALLOWED
    # Five seconds have refilled five units of the bucket, however often they were seen.
    assert limiter.remaining() == [left]
    (refused,) = limiter.decide(left + 1)
    limiter.now_ms += refused[2] - 1
    assert limiter.decide(left + 1)[0][0] == DENIED
    limiter.now_ms += 1
    assert limiter.decide(left + 1)[0][0] == ALLOWED


@pytest.mark.parametrize("window", [bucket(10, 60), sliding(10, 60)], ids=["bucket", "sliding"])
def test_a_clock_that_was_wrong_by_a_month_locks_nobody_out_and_gives_nothing_away(
    limiter: Limiter, window: Window
) -> None:
    limiter.in_force = policy(window)
    limiter.now_ms += MONTH_MS
    limiter.decide(10)
    limiter.now_ms -= MONTH_MS
    assert limiter.remaining() == [0]
    limiter.decide(1)
    limiter.now_ms += 63_000
    assert limiter.decide(9)[0][0] == ALLOWED


SLIDING_STEPS = st.lists(
    st.tuples(st.integers(0, 4_000), st.lists(st.integers(1, 6), min_size=1, max_size=4)), min_size=1, max_size=40
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=SLIDING_STEPS, limit=st.integers(1, 20), period_seconds=st.sampled_from([1, 7, 60]))
def test_a_sliding_window_is_what_the_contract_computes(
    server: redis.Redis, steps: list[tuple[int, list[int]]], limit: int, period_seconds: int
) -> None:
    server.flushall()
    window = sliding(limit, period_seconds)
    limiter, slices = Limiter(client=server, in_force=policy(bucket(10**6), window)), windows.Slices()
    for pause_ms, costs in steps:
        limiter.now_ms += pause_ms
        slices.advance(limiter.now_ms, window.period_ms)
        for cost, record in zip(costs, limiter.decide(*costs), strict=True):
            over = slices.total() + cost - limit
            wait_ms = slices.back_ms(over, window.period_ms) - limiter.now_ms if over > 0 else 0
            slices.take(0 if over > 0 else cost)
            taken = slices.total()
            back_ms = slices.back_ms(1, window.period_ms) - limiter.now_ms if taken else 0
            assert (record[0], record[2]) == (DENIED if over > 0 else ALLOWED, wait_ms)
            assert (record[4], record[6]) == (max(0, limit - taken), back_ms)


def test_a_sliding_window_keeps_its_units_when_its_period_changes(limiter: Limiter) -> None:
    limiter.in_force = policy(sliding(10, 60))
    limiter.decide(6)
    limiter.now_ms += 20_000
    limiter.decide(2)
    limiter.in_force = policy(sliding(10, 7), version=2)
    assert limiter.remaining() == [2]
    limiter.in_force = policy(sliding(9, 7), version=3)
    assert limiter.remaining() == [1]
    limiter.now_ms += 8_000
    assert limiter.remaining() == [9]


def test_the_state_of_a_sliding_window_outlives_its_last_unit(limiter: Limiter) -> None:
    limiter.in_force = policy(sliding(3, 3_200))
    limiter.decide(1)
    (key,) = limiter.client.keys("*")
    assert 3_300_000 <= limiter.client.pttl(key) <= 3_301_000


@dataclass
class Reference:
    """The same limits, one request at a time, in exact fractions."""

    windows: tuple[Window, ...]
    level: dict[str, Fraction] = field(default_factory=dict)
    at_ms: int = START_MS
    used: dict[tuple[str, int], int] = field(default_factory=dict)

    def decide(self, cost: int, now_ms: int) -> bool:
        instant = calendar_instant_of(now_ms * 1000)
        for window in self.windows:
            if window.kind is WindowKind.TOKEN_BUCKET:
                refill = Fraction((now_ms - self.at_ms) * window.limit, window.period_seconds * 1000)
                full = Fraction(window.limit)
                self.level[window.name] = min(full, self.level.get(window.name, full) + refill)
        self.at_ms = now_ms
        ids = {WindowKind.CALENDAR_DAY: instant.day, WindowKind.CALENDAR_MONTH: instant.month}
        for window in self.windows:
            if window.kind is WindowKind.TOKEN_BUCKET:
                if self.level[window.name] < cost:
                    return False
            elif self.used.get((window.name, ids[window.kind]), 0) + cost > window.limit:
                return False
        for window in self.windows:
            if window.kind is WindowKind.TOKEN_BUCKET:
                self.level[window.name] -= cost
            else:
                key = (window.name, ids[window.kind])
                self.used[key] = self.used.get(key, 0) + cost
        return True


STEPS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 50), st.integers(0, 90_000), st.sampled_from([86_400_000, 31 * 86_400_000])),
        st.lists(st.integers(1, 8), min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=25,
)
BUCKETS = st.builds(bucket, limit=st.integers(1, 40), period_seconds=st.sampled_from([1, 7, 60, 3600]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, burst=BUCKETS, slow=BUCKETS, per_day=st.integers(5, 60))
def test_verdicts_equal_the_reference_and_no_interval_is_over_admitted(
    server: redis.Redis, steps: list[tuple[int, list[int]]], burst: Window, slow: Window, per_day: int
) -> None:
    server.flushall()
    second = bucket(slow.limit, slow.period_seconds, name="slow")
    limiter = Limiter(client=server, in_force=policy(burst, second, day(per_day), month(3 * per_day)))
    reference = Reference(windows=limiter.in_force.windows)
    admitted: list[tuple[int, int]] = []
    for pause_ms, costs in steps:
        limiter.now_ms += pause_ms
        verdicts = [record[0] == ALLOWED for record in limiter.decide(*costs)]
        assert verdicts == [reference.decide(cost, limiter.now_ms) for cost in costs]
        admitted += [(limiter.now_ms, cost) for cost, allowed in zip(costs, verdicts, strict=True) if allowed]
    for window in (burst, second):
        for first in range(len(admitted)):
            for last in range(first, len(admitted)):
                units = sum(cost for _, cost in admitted[first : last + 1])
                elapsed_ms = admitted[last][0] - admitted[first][0]
                assert units <= window.limit + Fraction(elapsed_ms * window.limit, window.period_seconds * 1000)


def test_there_is_a_redis_to_test_on() -> None:
    assert SERVERS
