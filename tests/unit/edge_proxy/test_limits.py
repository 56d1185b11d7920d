from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from edge_proxy.limiter import local_share
from edge_proxy.limiter.header_fields import limit_lines
from edge_proxy.limiter.local_share import UNSEEN_UNITS_PER_MINUTE, Asking, LocalShare
from edge_proxy.limiter.policy import Policies, compile_policy

ORGANIZATION = UUID(int=5)
NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)


def policy(burst: int = 60, month: int = 1_000, version: int = 1) -> ratelimit.Policy:
    return ratelimit.Policy(
        organization_id=str(ORGANIZATION),
        version=version,
        windows=[
            ratelimit.Window(
                name="burst", kind=ratelimit.WINDOW_KIND_TOKEN_BUCKET, limit=burst, period_seconds=60,
                scope=ratelimit.WINDOW_SCOPE_API_KEY,
            ),
            ratelimit.Window(
                name="month", kind=ratelimit.WINDOW_KIND_CALENDAR_MONTH, limit=month,
                scope=ratelimit.WINDOW_SCOPE_ORGANIZATION, counts_billable_only=True,
            ),
        ],
    )  # fmt: skip


def asking(cost: int = 1, key: bytes = b"k", *, test: bool = False) -> Asking:
    return Asking(organization_id=ORGANIZATION.bytes, api_key_id=key, route_id="r", cost_units=cost, test_mode=test)


class Share(LocalShare):
    """A local share whose clocks move together, unless a test moves one of them."""

    def __init__(self, limits: ratelimit.Policy | None, live_edges: int = 1) -> None:
        policies = Policies()
        if limits is not None:
            policies.put(limits)
        super().__init__(policies, lambda: self.monotonic_ms)
        self.live_edges = live_edges
        self.monotonic_ms = 5_000_000
        self.now = NOW

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.monotonic_ms += round(seconds * 1_000)

    def ask(self, cost: int = 1, **who: object) -> ratelimit.Verdict:
        return self.decide(asking(cost, **who), int(self.now.timestamp() * 1e6))

    def admitted(self, count: int, **who: object) -> int:
        verdicts = [self.ask(**who) for _ in range(count)]
        return sum(verdict.kind == ratelimit.VERDICT_KIND_ALLOWED for verdict in verdicts)

    def hear(self, *remaining: int, version: int = 1, **who: object) -> None:
        """The limiter answers."""
        verdict = ratelimit.Verdict(
            policy_version=version, remaining=remaining, calendar_time_us=int(self.now.timestamp() * 1e6)
        )
        self.note(asking(**who), self._policies.get(ORGANIZATION.bytes), verdict)


def share(live_edges: int = 1, **changes: int) -> Share:
    return Share(policy(**changes), live_edges)


SECONDS = st.one_of(st.integers(0, 90), st.floats(0, 30))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(1, 5)),
        st.tuples(st.just("sleep"), SECONDS),
        # What the limiter says when it is back for a moment: anything from nothing to a full window.
        st.tuples(st.just("hear"), st.floats(0, 1)),
    ),
    max_size=120,
)


@given(st.integers(1, 200), st.integers(1, 20), STEPS)
def test_no_interval_holds_more_than_a_share_and_its_refill_whatever_the_limiter_says(burst, live_edges, steps):
    local = share(live_edges, burst=burst, month=1_000_000)
    part, start_ms = max(1, burst // live_edges), local.monotonic_ms
    admissions: list[tuple[int, int]] = []
    for step, value in steps:
        if step == "sleep":
            local.sleep(value)
        elif step == "hear":
            local.hear(int(burst * value), 1_000_000)
        elif local.ask(value).kind == ratelimit.VERDICT_KIND_ALLOWED:
            admissions.append((local.monotonic_ms - start_ms, value))
    for first in range(len(admissions)):
        for last in range(first, len(admissions)):
            elapsed_ms = admissions[last][0] - admissions[first][0]
            units = sum(cost for _, cost in admissions[first : last + 1])
            assert units * 60_000 <= part * (60_000 + elapsed_ms)


@given(st.integers(1, 200), st.integers(1, 20), st.data())
def test_after_a_verdict_no_more_passes_than_this_workers_part_of_what_was_left_and_its_refill(burst, live_edges, data):
    local = share(live_edges, burst=burst, month=1_000_000)
    left = data.draw(st.integers(0, burst))
    local.admitted(data.draw(st.integers(0, 5)))
    local.hear(left, 1_000_000)
    heard_ms, units = local.monotonic_ms, 0
    for seconds in data.draw(st.lists(SECONDS, max_size=30)):
        local.sleep(seconds)
        units += local.ask().kind == ratelimit.VERDICT_KIND_ALLOWED
        part = max(1, burst // live_edges)
        assert units * 60_000 <= left * 60_000 / live_edges + part * (local.monotonic_ms - heard_ms)


@given(st.integers(0, 100), st.integers(1, 8), st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=20))
def test_a_months_share_is_never_given_twice_in_the_same_month(left, live_edges, flaps):
    """The limiter learns of what was admitted here from metering only; until then it says the same again and again."""
    local, units = share(live_edges, burst=1_000, month=1_000), 0
    local.hear(1_000, left)
    for count, hears in flaps:
        units += local.admitted(count)
        local.sleep(60)
        if hears:
            local.hear(1_000, left)
        assert units <= left / live_edges


def test_an_empty_window_denies_the_first_request_of_an_outage():
    local = share(burst=60, month=1_000)
    local.hear(0, 500)
    verdict = local.ask()
    assert (verdict.kind, verdict.denied_by, verdict.retry_after_ms) == (ratelimit.VERDICT_KIND_DENIED, 0, 1_000)


def test_a_limiter_that_comes_back_for_a_moment_refills_nothing():
    local = share(burst=6)
    assert local.admitted(10) == 6
    for _ in range(10):
        local.sleep(0.35)
        local.hear(6, 1_000)
    assert local.admitted(10) == 0


def test_a_step_of_the_wall_clock_refills_no_bucket_and_a_step_back_no_month():
    local = share(burst=5, month=1_000)
    assert local.admitted(10) == 5
    local.now += timedelta(hours=1)
    assert local.admitted(10) == 0
    monthly = share(burst=1_000, month=7)
    monthly.now = datetime(2026, 4, 1, tzinfo=UTC)
    assert monthly.admitted(10) == 7
    monthly.now = NOW
    assert monthly.admitted(10) == 0


def test_refused_request_takes_nothing_from_any_window():
    local = share(burst=5, month=1_000)
    assert local.ask(6).kind == ratelimit.VERDICT_KIND_DENIED
    assert local.admitted(10) == 5
    verdict = local.ask()
    assert (verdict.denied_by, list(verdict.remaining)) == (0, [0, 995])
    assert verdict.retry_after_ms == 12_000


def test_waiting_as_long_as_was_said_succeeds_and_a_millisecond_less_does_not():
    local = share(burst=7)
    local.admitted(7)
    local.sleep(local.ask(3).retry_after_ms / 1_000 - 0.001)
    assert local.ask(3).kind == ratelimit.VERDICT_KIND_DENIED
    local.sleep(0.001)
    assert local.ask(3).kind == ratelimit.VERDICT_KIND_ALLOWED


def test_each_key_has_its_own_bucket_and_test_keys_count_apart():
    local = share(burst=3, month=4)
    assert local.admitted(5) == 3
    assert local.admitted(5, key=b"other") == 1
    assert local.admitted(5, test=True) == 3


def test_what_was_said_about_one_key_says_nothing_about_another():
    local = share(burst=3, month=1_000)
    local.hear(0, 1_000, key=b"a")
    assert local.admitted(5, key=b"b") == 3
    assert local.admitted(5, key=b"a") == 0


def test_month_continues_from_what_the_limiter_said_last():
    local = share(2, burst=1_000, month=1_000)
    local.hear(1_000, 10)
    assert local.admitted(20) == 5
    verdict = local.ask()
    assert verdict.denied_by == 1
    assert verdict.retry_after_ms == 12 * 3_600 * 1_000
    local.sleep(13 * 3_600)
    assert local.admitted(1) == 1


def sliding_share(limit: int, live_edges: int) -> Share:
    window = ratelimit.Window(
        name="s", kind=ratelimit.WINDOW_KIND_SLIDING, limit=limit, period_seconds=60,
        scope=ratelimit.WINDOW_SCOPE_ORGANIZATION,
    )  # fmt: skip
    return Share(ratelimit.Policy(organization_id=str(ORGANIZATION), version=1, windows=[window]), live_edges)


@given(st.integers(1, 100), st.integers(1, 8), STEPS)
def test_no_period_of_a_sliding_window_holds_more_than_a_share_whatever_the_limiter_says(limit, live_edges, steps):
    local, admissions = sliding_share(limit, live_edges), []
    for step, value in steps:
        if step == "sleep":
            local.sleep(value)
        elif step == "hear":
            local.hear(int(limit * value))
        elif local.ask(value).kind == ratelimit.VERDICT_KIND_ALLOWED:
            admissions.append((local.monotonic_ms, value))
            recent = sum(units for at_ms, units in admissions if local.monotonic_ms - at_ms < 60_000)
            assert recent <= max(1, limit // live_edges)


def test_a_sliding_share_starts_from_the_last_verdict_and_says_exactly_when_there_is_room():
    local = sliding_share(10, 2)
    local.hear(4)
    assert local.admitted(5) == 2
    verdict = local.ask()
    assert verdict.kind == ratelimit.VERDICT_KIND_DENIED
    local.hear(10)
    assert local.admitted(1) == 0
    local.sleep((verdict.retry_after_ms - 1) / 1_000)
    assert local.admitted(1) == 0
    local.sleep(0.001)
    assert local.admitted(9) == 5


def test_counts_are_carried_over_to_the_next_policy_by_name():
    local = share(burst=6)
    assert local.admitted(10) == 6
    changed = policy(burst=6, version=2)
    changed.windows[0].period_seconds = 120
    local._policies.put(changed)
    assert local.admitted(10) == 0


def test_a_flood_of_other_keys_keeps_counters_bounded_and_forgets_the_oldest_first(monkeypatch):
    monkeypatch.setattr(local_share, "COUNTERS_MAX", 8)
    local = share(burst=3, month=1_000_000)
    for number in range(50):
        local.admitted(3, key=b"%d" % number)
        assert local.admitted(3, key=b"used all the time") == (0 if number else 3)
    assert len(local._counters) == 8


def test_organization_that_was_never_seen_passes_a_bounded_number():
    assert Share(None).admitted(200) == UNSEEN_UNITS_PER_MINUTE


def test_newest_policy_version_is_kept():
    policies = Policies()
    policies.put(policy(burst=2, version=2))
    policies.put(policy(burst=1, version=1))
    assert policies.get(ORGANIZATION.bytes).limits[0] == 2


def test_fields_show_the_window_with_least_left_relative_to_its_limit():
    verdict = ratelimit.Verdict(policy_version=1, remaining=[59, 100], reset_ms=[1_000, 864_000_001])
    lines = limit_lines(compile_policy(policy()), verdict, 1_000.0).decode()
    assert lines == (
        'RateLimit-Policy: "burst";q=60;w=60, "month";q=1000\r\n'
        "X-RateLimit-Limit: 1000\r\nX-RateLimit-Remaining: 100\r\nX-RateLimit-Reset: 865001\r\n"
        'RateLimit: "burst";r=59;t=1, "month";r=100;t=864001\r\n'
    )


def test_the_field_says_when_the_next_unit_comes_not_when_the_bucket_is_full():
    verdict = ratelimit.Verdict(policy_version=1, remaining=[10, 900], reset_ms=[49_500, 864_000_000])
    lines = limit_lines(compile_policy(policy()), verdict, 1_000.0).decode()
    assert 'RateLimit: "burst";r=10;t=1, "month";r=900;t=864000\r\n' in lines
    assert "X-RateLimit-Reset: 1050\r\n" in lines


def test_no_fields_without_a_policy_or_with_one_of_another_shape():
    verdict = ratelimit.Verdict(remaining=[1], reset_ms=[1])
    assert limit_lines(None, verdict, 0.0) == b""
    assert limit_lines(compile_policy(policy()), verdict, 0.0) == b""
