from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

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


def share(live_edges: int = 1, **changes: int) -> LocalShare:
    policies = Policies()
    policies.put(policy(**changes))
    made = LocalShare(policies)
    made.live_edges = live_edges
    return made


def admitted(local: LocalShare, count: int, now: datetime = NOW, **who: object) -> int:
    verdicts = [local.decide(asking(**who), now) for _ in range(count)]
    return sum(verdict.kind == ratelimit.VERDICT_KIND_ALLOWED for verdict in verdicts)


@given(st.integers(1, 200), st.integers(1, 20), st.lists(st.tuples(st.integers(1, 5), st.floats(0, 30)), max_size=80))
def test_local_share_never_admits_more_than_its_bucket_and_refill(burst, live_edges, requests):
    local = share(live_edges, burst=burst, month=1_000_000)
    now, units = NOW, 0
    for cost, wait_seconds in requests:
        now += timedelta(seconds=wait_seconds)
        if local.decide(asking(cost), now).kind == ratelimit.VERDICT_KIND_ALLOWED:
            units += cost
        part = max(1, burst // live_edges)
        assert units <= part + part * (now - NOW).total_seconds() / 60 + 1e-6


def test_refused_request_takes_nothing_from_any_window():
    local = share(burst=5, month=1_000)
    assert local.decide(asking(6), NOW).kind == ratelimit.VERDICT_KIND_DENIED
    assert admitted(local, 10) == 5
    verdict = local.decide(asking(), NOW)
    assert (verdict.denied_by, list(verdict.remaining)) == (0, [0, 995])
    assert 11_000 < verdict.retry_after_ms <= 12_001


def test_each_key_has_its_own_bucket_and_test_keys_count_apart():
    local = share(burst=3, month=4)
    assert admitted(local, 5) == 3
    assert admitted(local, 5, key=b"other") == 1
    assert admitted(local, 5, test=True) == 3


def test_month_continues_from_what_the_limiter_said_last():
    local = share(2, burst=1_000, month=1_000)
    last = ratelimit.Verdict(policy_version=1, remaining=[1_000, 10], calendar_time_us=int(NOW.timestamp() * 1e6))
    local.note(ORGANIZATION.bytes, False, last)
    assert admitted(local, 20) == 5
    verdict = local.decide(asking(), NOW)
    assert verdict.denied_by == 1
    assert verdict.retry_after_ms == 12 * 3_600 * 1_000
    assert admitted(local, 1, now=NOW + timedelta(hours=13)) == 1


def test_organization_that_was_never_seen_passes_a_bounded_number():
    assert admitted(LocalShare(Policies()), 200) == UNSEEN_UNITS_PER_MINUTE


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


def test_no_fields_without_a_policy_or_with_one_of_another_shape():
    verdict = ratelimit.Verdict(remaining=[1], reset_ms=[1])
    assert limit_lines(None, verdict, 0.0) == b""
    assert limit_lines(compile_policy(policy()), verdict, 0.0) == b""
