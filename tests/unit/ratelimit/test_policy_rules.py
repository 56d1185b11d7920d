from __future__ import annotations

import pytest
from tollway.ratelimit.v1 import ratelimit_service_pb2 as pb

from contract.windows import WindowScope
from mesh.rpc.errors import InvalidFields, Violations
from services.ratelimit.rpc.policies import check_policy, from_policy, to_policy
from services.ratelimit.store import from_document, to_document
from tests.support.ratelimit import bucket, day, month, policy, sliding

GOOD = policy(bucket(60), month(1_000), day(5, WindowScope.API_KEY), sliding(5), version=3)


def wrong_fields(message: pb.Policy) -> list[str]:
    wrong = Violations()
    check_policy(message, wrong)
    try:
        wrong.raise_if_any()
    except InvalidFields as error:
        return [violation.field for violation in error.violations]
    return []


def window(**changes: object) -> pb.Policy:
    message = to_policy(policy(bucket(60)))
    for name, value in changes.items():
        setattr(message.windows[0], name, value)
    return message


def test_a_good_policy_has_nothing_wrong_and_survives_both_forms() -> None:
    assert wrong_fields(to_policy(GOOD)) == []
    assert from_policy(to_policy(GOOD)) == GOOD
    assert from_document(GOOD.organization_id, GOOD.version, to_document(GOOD)) == GOOD


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "Burst"}, "name"),
        ({"name": "a=b"}, "name"),
        ({"name": "b" * 33}, "name"),
        ({"limit": 0}, "limit"),
        ({"limit": 2**50}, "limit"),
        ({"period_seconds": 0}, "period_seconds"),
        ({"period_seconds": 32 * 86_400}, "period_seconds"),
        ({"kind": 0}, "kind"),
        ({"kind": pb.WINDOW_KIND_CALENDAR_DAY}, "period_seconds"),
        ({"kind": pb.WINDOW_KIND_CALENDAR_MONTH, "period_seconds": 0, "limit": 2**52 + 1}, "limit"),
        ({"kind": pb.WINDOW_KIND_SLIDING, "period_seconds": 0}, "period_seconds"),
        ({"kind": pb.WINDOW_KIND_SLIDING, "limit": 2**52 + 1}, "limit"),
        ({"kind": pb.WINDOW_KIND_SLIDING, "counts_billable_only": True}, "counts_billable_only"),
        ({"scope": 0}, "scope"),
        ({"scope": 9}, "scope"),
        ({"counts_billable_only": True}, "counts_billable_only"),
    ],
)
def test_each_rule_of_a_window_is_held(changes: dict[str, object], field: str) -> None:
    assert wrong_fields(window(**changes)) == [f"policy.windows[0].{field}"]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    message = to_policy(policy(bucket(1), bucket(2), version=1))
    message.organization_id, message.version = "x", 0
    message.windows[0].limit = -5
    assert wrong_fields(message) == [
        "policy.organization_id",
        "policy.version",
        "policy.windows[0].limit",
        "policy.windows[1].name",
    ]


@pytest.mark.parametrize("count", [0, 17])
def test_a_policy_has_one_to_sixteen_windows(count: int) -> None:
    assert wrong_fields(to_policy(policy(*(bucket(1, name=f"w{n}") for n in range(count))))) == ["policy.windows"]
