import pytest
from tollway.events.v1 import usage_event_pb2 as events

from contract.outcomes import gives_back, is_billable

# The table of `contract/outcomes.py`, row by row: outcome, status, billed, unit given back if it had been taken.
TABLE = [
    (events.OUTCOME_ANSWERED, 200, True, False),
    (events.OUTCOME_ANSWERED, 302, True, False),
    (events.OUTCOME_ANSWERED, 404, True, False),
    (events.OUTCOME_ANSWERED, 101, True, False),
    (events.OUTCOME_CACHED, 200, True, False),
    (events.OUTCOME_ANSWERED, 500, False, True),
    (events.OUTCOME_ANSWERED, 503, False, True),
    (events.OUTCOME_UPSTREAM_TIMEOUT, 504, False, True),
    (events.OUTCOME_UPSTREAM_UNREACHABLE, 502, False, True),
    (events.OUTCOME_UPSTREAM_ABORTED, 200, False, True),
    (events.OUTCOME_REFUSED, 413, False, True),
    (events.OUTCOME_REFUSED, 429, False, True),
    (events.OUTCOME_CORS_PREFLIGHT, 204, False, True),
    (events.OUTCOME_CLIENT_LEFT_BEFORE_ANSWER, 499, False, True),
    (events.OUTCOME_CLIENT_LEFT_DURING_ANSWER, 200, True, False),
    (events.OUTCOME_CLIENT_LEFT_DURING_ANSWER, 500, False, True),
]


@pytest.mark.parametrize(("outcome", "status", "billed", "given_back"), TABLE)
def test_the_table(outcome, status, billed, given_back):
    assert is_billable(outcome, status, test_mode=False) is billed
    assert gives_back(outcome, status, admitted=True) is given_back


@pytest.mark.parametrize(("outcome", "status", "billed", "given_back"), TABLE)
def test_test_keys_are_never_billed_and_refused_requests_give_nothing_back(outcome, status, billed, given_back):
    assert not is_billable(outcome, status, test_mode=True)
    assert not gives_back(outcome, status, admitted=False)


def test_every_outcome_of_the_contract_is_on_the_table():
    assert {row[0] for row in TABLE} == set(events.Outcome.values()) - {events.OUTCOME_UNSPECIFIED}


@pytest.mark.parametrize("status", [101, 200, 404, 499, 500, 503])
def test_what_is_not_billed_is_what_goes_back_to_the_quota(status):
    for outcome in events.Outcome.values():
        assert gives_back(outcome, status, admitted=True) is not is_billable(outcome, status, test_mode=False)
