"""A valid token is not enough: what `auth` says of its principal counts, too."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.clock import ManualClock
from mesh.ids import SequenceIds
from mesh.rpc import access
from mesh.rpc.access import Principal, PrincipalKind, Verifier
from mesh.rpc.principals import KEPT_SECONDS, Principals
from mesh.rpc.tokens import SessionSigner
from tests.support.machine_tokens import machine_token
from tests.support.processes import PROCESS_KEYS, process_metadata

OWN, ANN, SESSION, ACCOUNT = UUID(int=1), UUID(int=9), UUID(int=21), UUID(int=5)
MACHINE = machine_token("ci")


class Side:
    """`auth` as a verifier knows it."""

    def __init__(self) -> None:
        self.clock = ManualClock(datetime.now(UTC))
        self.signer = SessionSigner(seed=bytes(32), clock=self.clock, ids=SequenceIds())
        self.principals = Principals(clock=self.clock)
        self.asked = 0
        self.account: Principal | None = Principal(
            kind=PrincipalKind.SERVICE_ACCOUNT, subject=str(ACCOUNT), organization_id=OWN
        )
        self.while_asked = lambda: None
        self.verifier = Verifier(
            process_keys=PROCESS_KEYS,
            audience="billing",
            fetch_jwks=self.fetch_jwks,
            resolve_service_account=self.resolve,
            clock=self.clock,
            principals=self.principals,
        )

    async def fetch_jwks(self) -> str:
        return self.signer.jwks_json()

    async def resolve(self, token: str) -> Principal | None:
        self.asked += 1
        answer = self.account
        self.while_asked()
        return answer

    def token(self, **fields: Any) -> str:
        issued, _ = self.signer.issue(
            person_id=ANN,
            organization_id=OWN,
            role="owner",
            **{"session_id": SESSION, "membership_version": 3, **fields},
        )
        return f"Bearer {issued}"

    def say(self, *changes: pb.PrincipalChange, complete: bool = False) -> None:
        if complete:
            self.principals.begin_snapshot()
        self.principals.receive(pb.WatchPrincipalsResponse(changes=changes, snapshot_complete=complete))

    def forget_time_s(self) -> int:
        return int(self.clock.now().timestamp()) + KEPT_SECONDS

    def end_session(self) -> None:
        ended = pb.RevokedSession(session_id=str(SESSION), forget_time_s=self.forget_time_s())
        self.say(pb.PrincipalChange(session=ended))

    def change_membership(self, version: int) -> None:
        changed = pb.ChangedMembership(
            person_id=str(ANN), organization_id=str(OWN), version=version, forget_time_s=self.forget_time_s()
        )
        self.say(pb.PrincipalChange(membership=changed))

    def state(self, state: int, version: int) -> None:
        changed = pb.ChangedOrganization(organization_id=str(OWN), state=state, version=version)
        self.say(pb.PrincipalChange(organization=changed))

    def change_account(self) -> None:
        changed = pb.ChangedServiceAccount(service_account_id=str(ACCOUNT))
        self.say(pb.PrincipalChange(service_account=changed))


@pytest.fixture
def side() -> Side:
    side = Side()
    side.say(complete=True)
    side.clock.advance(1)
    return side


async def test_a_token_says_which_session_and_membership_it_is_from(side: Side) -> None:
    principal = await side.verifier.principal(side.token())
    assert (principal.session_id, principal.membership_version) == (SESSION, 3)
    now_s = int(side.clock.now().timestamp())
    assert (principal.issue_time_s, principal.expire_time_s) == (now_s, now_s + 900)


async def test_an_ended_session_is_refused(side: Side) -> None:
    side.end_session()
    with pytest.raises(access.CredentialsInvalid):
        await side.verifier.principal(side.token())
    await side.verifier.principal(side.token(session_id=UUID(int=22)))


async def test_a_changed_membership_refuses_the_tokens_from_before(side: Side) -> None:
    side.change_membership(4)
    with pytest.raises(access.CredentialsInvalid):
        await side.verifier.principal(side.token())
    await side.verifier.principal(side.token(membership_version=4))


async def test_whoever_is_of_a_suspended_organization_is_let_in_as_such(side: Side) -> None:
    credentials = side.token(), f"Bearer {MACHINE}"
    for state, version, is_suspended in (
        (pb.ORGANIZATION_STATE_SUSPENDED, 1, True),
        (pb.ORGANIZATION_STATE_ACTIVE, 2, False),
    ):
        side.state(state, version)
        assert [(await side.verifier.principal(each)).is_suspended for each in credentials] == [is_suspended] * 2


async def test_everybody_of_a_deleted_organization_is_refused(side: Side) -> None:
    side.state(pb.ORGANIZATION_STATE_DELETED, 1)
    for credentials in (side.token(), f"Bearer {MACHINE}"):
        with pytest.raises(access.CredentialsInvalid):
            await side.verifier.principal(credentials)


async def test_a_changed_service_account_is_asked_for_at_once(side: Side) -> None:
    for _ in range(2):
        await side.verifier.principal(f"Bearer {MACHINE}")
    assert side.asked == 1
    side.account = None
    side.change_account()
    with pytest.raises(access.CredentialsInvalid):
        await side.verifier.principal(f"Bearer {MACHINE}")


async def test_an_answer_from_before_a_change_is_not_kept(side: Side) -> None:
    def change() -> None:
        side.account = None
        side.clock.advance(0.1)
        side.change_account()

    side.while_asked = change
    await side.verifier.principal(f"Bearer {MACHINE}")
    side.while_asked = lambda: None
    with pytest.raises(access.CredentialsInvalid):
        await side.verifier.principal(f"Bearer {MACHINE}")


async def test_nobody_is_let_in_before_the_first_snapshot_but_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "PRINCIPALS_LOAD_SECONDS_MAX", 0.01)
    side = Side()
    side.say()
    for credentials in (side.token(), f"Bearer {MACHINE}"):
        with pytest.raises(access.VerifierUnavailable):
            await side.verifier.principal(credentials)
    ((_, bearer),) = process_metadata("metering", "billing")
    assert (await side.verifier.principal(bearer)).subject == "metering"


async def test_who_comes_before_the_first_snapshot_waits_for_it() -> None:
    side = Side()
    waiting = asyncio.ensure_future(side.verifier.principal(side.token()))
    await asyncio.sleep(0)
    side.end_session()
    side.say(
        pb.PrincipalChange(session=pb.RevokedSession(session_id=str(SESSION), forget_time_s=side.forget_time_s())),
        complete=True,
    )
    with pytest.raises(access.CredentialsInvalid):
        await waiting


async def test_a_verifier_takes_what_it_is_given_even_while_that_knows_nothing() -> None:
    side = Side()
    assert side.verifier._principals is side.principals
