"""What verifiers hold about principals, against a plain model of it."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.clock import ManualClock
from mesh.rpc.principals import KEPT_SECONDS, SERVICE_ACCOUNT_CHANGES_MAX, Principals
from mesh.rpc.tokens import SESSION_SECONDS

START = datetime(2025, 1, 1, tzinfo=UTC)
NOW_S = int(START.timestamp())
SESSION = UUID(int=21)
ACME, OTHER = UUID(int=1), UUID(int=2)
ANN, BOB = UUID(int=11), UUID(int=12)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A person's, as far as the state machine looks at it."""

    subject: str = str(ANN)
    organization_id: UUID | None = ACME
    session_id: UUID | None = SESSION
    membership_version: int = 1
    issue_time_s: float = NOW_S


def session(number: int, *, ended_at_s: int = NOW_S) -> pb.PrincipalChange:
    return pb.PrincipalChange(
        session=pb.RevokedSession(session_id=str(UUID(int=number)), forget_time_s=ended_at_s + KEPT_SECONDS)
    )


def membership(version: int, *, person: UUID = ANN, changed_at_s: int = NOW_S) -> pb.PrincipalChange:
    return pb.PrincipalChange(
        membership=pb.ChangedMembership(
            person_id=str(person),
            organization_id=str(ACME),
            version=version,
            forget_time_s=changed_at_s + KEPT_SECONDS,
        )
    )


def organization(state: int, version: int, organization_id: UUID = ACME) -> pb.PrincipalChange:
    return pb.PrincipalChange(
        organization=pb.ChangedOrganization(organization_id=str(organization_id), state=state, version=version)
    )


def account(number: int) -> pb.PrincipalChange:
    return pb.PrincipalChange(service_account=pb.ChangedServiceAccount(service_account_id=str(UUID(int=number))))


def said(*changes: pb.PrincipalChange, complete: bool = False) -> pb.WatchPrincipalsResponse:
    return pb.WatchPrincipalsResponse(changes=changes, snapshot_complete=complete)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def principals(clock: ManualClock) -> Principals:
    principals = Principals(clock=clock)
    principals.begin_snapshot()
    assert principals.receive(said(complete=True))
    return principals


def test_nothing_is_refused_that_nobody_spoke_of(principals: Principals) -> None:
    principals.receive(
        said(session(99), membership(7, person=BOB), organization(pb.ORGANIZATION_STATE_DELETED, 1, OTHER))
    )
    assert not principals.refuses(Token())
    assert not principals.refuses(Token(session_id=None))
    assert not principals.is_suspended(ACME)


def test_tokens_of_an_ended_session_are_refused(principals: Principals) -> None:
    principals.receive(said(session(21)))
    assert principals.refuses(Token())
    assert not principals.refuses(Token(session_id=UUID(int=22)))


def test_tokens_of_an_older_membership_are_refused_and_newer_ones_are_not(principals: Principals) -> None:
    principals.receive(said(membership(5)))
    assert [principals.refuses(Token(membership_version=version)) for version in (4, 5, 6)] == [True, False, False]
    assert not principals.refuses(Token(subject=str(BOB), membership_version=4))
    assert not principals.refuses(Token(organization_id=OTHER, membership_version=4))


def test_a_deleted_organization_refuses_everybody_and_a_suspended_one_nobody(principals: Principals) -> None:
    principals.receive(said(organization(pb.ORGANIZATION_STATE_SUSPENDED, 2)))
    assert (principals.refuses(Token()), principals.is_suspended(ACME)) == (False, True)
    principals.receive(said(organization(pb.ORGANIZATION_STATE_DELETED, 3)))
    assert (principals.refuses(Token()), principals.is_suspended(ACME)) == (True, False)
    # A service account has no session and no membership.
    assert principals.refuses(Token(subject=str(UUID(int=31)), session_id=None, issue_time_s=math.inf))


def test_an_older_state_that_comes_later_changes_nothing(principals: Principals) -> None:
    principals.receive(said(organization(pb.ORGANIZATION_STATE_SUSPENDED, 3)))
    principals.receive(said(organization(pb.ORGANIZATION_STATE_ACTIVE, 2)))
    assert principals.is_suspended(ACME)
    principals.receive(said(organization(pb.ORGANIZATION_STATE_ACTIVE, 4)))
    assert not principals.is_suspended(ACME)


def test_what_is_held_stays_in_force_until_a_new_snapshot_is_complete(principals: Principals) -> None:
    principals.receive(said(session(21)))
    principals.begin_snapshot()
    assert not principals.receive(said(session(22)))
    assert principals.refuses(Token())
    assert principals.refuses(Token(session_id=UUID(int=22)))
    assert principals.receive(said(complete=True))
    assert not principals.refuses(Token())
    assert principals.refuses(Token(session_id=UUID(int=22)))


def test_a_snapshot_that_breaks_off_leaves_what_was_held(principals: Principals) -> None:
    principals.receive(said(session(21)))
    principals.begin_snapshot()
    principals.receive(said(session(22)))
    principals.begin_snapshot()
    assert principals.receive(said(session(23), complete=True))
    assert [principals.refuses(Token(session_id=UUID(int=number))) for number in (21, 22, 23)] == [False, False, True]


def test_what_no_valid_token_can_need_is_forgotten(principals: Principals, clock: ManualClock) -> None:
    principals.receive(said(session(21), membership(5)))
    clock.advance(SESSION_SECONDS)
    principals.receive(said(membership(6, changed_at_s=NOW_S + SESSION_SECONDS)))
    clock.advance(KEPT_SECONDS - SESSION_SECONDS)
    principals.receive(said())
    assert (principals.held_count, principals.refuses(Token(membership_version=6))) == (1, False)
    assert principals.refuses(Token(membership_version=5))
    clock.advance(SESSION_SECONDS)
    principals.receive(said())
    assert principals.held_count == 0


def test_more_than_can_be_held_refuses_everything_issued_until_then(clock: ManualClock) -> None:
    principals = Principals(clock=clock, held_max=10)
    principals.receive(said(*(session(100 + number, ended_at_s=NOW_S + number) for number in range(15))))
    assert principals.held_count == 10
    for number in range(15):
        # A session's tokens are older than its end.
        token = Token(session_id=UUID(int=100 + number), issue_time_s=NOW_S + number - 1)
        assert principals.refuses(token)
    assert principals.refuses(Token(issue_time_s=NOW_S + 3))
    # Whoever renews their session after that is let in.
    assert not principals.refuses(Token(issue_time_s=NOW_S + 4))


def test_tokens_from_before_an_instant_are_refused_where_auth_says_so(principals: Principals) -> None:
    principals.receive(said(pb.PrincipalChange(tokens=pb.RefusedTokens(issued_before_time_s=NOW_S))))
    assert principals.refuses(Token(issue_time_s=NOW_S - 1))
    assert not principals.refuses(Token(issue_time_s=NOW_S))


def test_a_service_account_is_asked_for_again_after_a_change(principals: Principals, clock: ManualClock) -> None:
    clock.advance(1)
    asked_at = clock.monotonic()
    assert principals.is_current(str(UUID(int=31)), asked_at)
    principals.receive(said(account(31)))
    assert not principals.is_current(str(UUID(int=31)), asked_at)
    assert principals.is_current(str(UUID(int=32)), asked_at)
    clock.advance(1)
    assert principals.is_current(str(UUID(int=31)), clock.monotonic())
    principals.begin_snapshot()
    principals.receive(said(complete=True))
    assert not principals.is_current(str(UUID(int=32)), asked_at)


def test_changes_of_service_accounts_are_held_in_bounded_room(principals: Principals, clock: ManualClock) -> None:
    clock.advance(1)
    asked_at = clock.monotonic()
    principals.receive(said(*(account(1_000 + number) for number in range(SERVICE_ACCOUNT_CHANGES_MAX + 1))))
    assert len(principals._accounts_changed_at) == 1
    assert not principals.is_current(str(UUID(int=1_000)), asked_at)


def test_a_kind_of_change_that_is_not_known_yet_is_left_out(principals: Principals) -> None:
    principals.receive(said(pb.PrincipalChange()))
    assert not principals.refuses(Token())


@pytest.mark.parametrize(
    "change",
    [
        session(21),
        membership(5),
        organization(pb.ORGANIZATION_STATE_SUSPENDED, 2),
        account(11),
        pb.PrincipalChange(tokens=pb.RefusedTokens(issued_before_time_s=NOW_S)),
    ],
)
def test_who_waits_is_woken_by_what_concerns_them(principals: Principals, change: pb.PrincipalChange) -> None:
    with principals.watching(Token()) as changed:
        principals.receive(said(session(99), membership(9, person=BOB), account(99)))
        assert not changed.is_set()
        principals.receive(said(change))
        assert changed.is_set()
    assert not principals._waiting


CHANGES = st.one_of(
    st.builds(session, st.integers(21, 24), ended_at_s=st.integers(NOW_S - 2_000, NOW_S)),
    st.builds(membership, st.integers(1, 6), person=st.sampled_from([ANN, BOB])),
    # A state goes with its version.
    st.integers(1, 6).map(lambda version: organization(1 + version % 3, version)),
)
TOKENS = st.builds(
    Token,
    subject=st.sampled_from([str(ANN), str(BOB)]),
    session_id=st.sampled_from([None, *(UUID(int=number) for number in range(20, 25))]),
    membership_version=st.integers(0, 7),
)


def is_refused(changes: list[pb.PrincipalChange], token: Token) -> bool:
    """The law, looked up in the list of everything that was said."""
    states = [change.organization for change in changes if change.HasField("organization")]
    return (
        any(
            change.session.session_id == str(token.session_id) and change.session.forget_time_s > NOW_S
            for change in changes
            if change.HasField("session")
        )
        or any(
            change.membership.person_id == token.subject and change.membership.version > token.membership_version
            for change in changes
            if change.HasField("membership")
        )
        or (bool(states) and max(states, key=lambda each: each.version).state == pb.ORGANIZATION_STATE_DELETED)
    )


@given(st.lists(CHANGES, max_size=30), st.lists(TOKENS, min_size=1, max_size=5), st.data())
def test_any_order_and_duplication_refuses_the_same(
    changes: list[pb.PrincipalChange], tokens: list[Token], data: st.DataObject
) -> None:
    principals = Principals(clock=ManualClock(START))
    shuffled = data.draw(st.permutations(changes + changes[: len(changes) // 2]))
    if data.draw(st.booleans()):
        principals.begin_snapshot()
    while shuffled:
        size = data.draw(st.integers(1, len(shuffled)))
        principals.receive(said(*shuffled[:size]))
        shuffled = shuffled[size:]
    principals.receive(said(complete=True))
    for token in tokens:
        assert principals.refuses(token) == is_refused(changes, token)


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 3_000)), max_size=60), st.integers(0, 20))
def test_a_bound_never_lets_in_who_would_be_refused_without_it(ended: list[tuple[int, int]], held_max: int) -> None:
    clock = ManualClock(START)
    bounded, unbounded = Principals(clock=clock, held_max=held_max), Principals(clock=clock)
    for number, seconds_later in ended:
        change = session(number, ended_at_s=NOW_S + seconds_later - 3_000)
        bounded.receive(said(change))
        unbounded.receive(said(change))
        assert bounded.held_count <= held_max
    for number, seconds_later in ended:
        issued_at_s = NOW_S + seconds_later - 3_000 - 1
        token = Token(session_id=UUID(int=number), issue_time_s=issued_at_s)
        still_valid = issued_at_s + SESSION_SECONDS > NOW_S
        assert not (still_valid and unbounded.refuses(token)) or bounded.refuses(token)
