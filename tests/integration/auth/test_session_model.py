"""Sessions against a reference model: whatever happens in whatever order, the store and the model agree."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mesh.clock import ManualClock
from mesh.database.idempotency import Idempotency
from mesh.database.pools import Database
from mesh.ids import RandomIds
from mesh.rpc.errors import RpcError
from mesh.rpc.tokens import SESSION_SECONDS, read_jwks, read_session_token
from mesh.secretbox import SecretBox
from services.auth import families
from services.auth.audit import AuditLog
from services.auth.families import IDLE_DAYS_MAX, LIFE_DAYS_MAX, SessionFamilies
from services.auth.model import SessionTokens
from services.auth.refresh_tokens import RefreshTokens
from services.auth.signing_keys import SigningKeys
from tests.support.accounts import DATA_KEY, PEPPER, mail, seed_organization
from tests.support.postgres import TestPostgres

SESSIONS_MAX = 4
IDLE, LIFE = timedelta(days=IDLE_DAYS_MAX), timedelta(days=LIFE_DAYS_MAX)
EXAMPLES, STEPS = 10, 20
ROLES = ("owner", "admin", "member")

Result = TypeVar("Result")


@dataclass(slots=True, kw_only=True)
class Family:
    """What the model knows of one session."""

    session_id: UUID
    organization_id: UUID
    expire_time: datetime
    end_time: datetime
    last_use_time: datetime
    token: str
    used: list[str] = field(default_factory=list)
    ended: bool = False


class World:
    """The real thing: rules, store and PostgreSQL, under a clock that stands still until it is moved."""

    def __init__(self, runner: asyncio.Runner, db: Database, dsn: str) -> None:
        self.runner, self.db, self.dsn = runner, db, dsn
        self.clock, ids = ManualClock(datetime(2030, 1, 1, tzinfo=UTC)), RandomIds()
        audit, box = AuditLog(clock=self.clock, ids=ids), SecretBox({1: DATA_KEY})
        self.keys = SigningKeys(
            db=db,
            box=box,
            first_seed=b"s" * 32,
            idempotency=Idempotency(box=box, clock=self.clock),
            audit=audit,
            random_bytes=secrets.token_bytes,
            clock=self.clock,
            ids=ids,
        )
        self.families = SessionFamilies(
            db=db,
            signing_keys=self.keys,
            refresh_tokens=RefreshTokens(peppers={1: PEPPER}, random_bytes=secrets.token_bytes),
            audit=audit,
            mail=mail(),
            clock=self.clock,
            ids=ids,
        )
        self.numbers = iter(range(1_000_000))
        self.run(self.keys.load())

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(work)

    def outcome(self, work: Coroutine[Any, Any, Result]) -> Result | str:
        """The result, or the reason of the refusal."""
        try:
            return self.run(work)
        except RpcError as error:
            return error.reason()

    async def fetch(self, statement: str, *values: Any) -> Any:
        async with self.db.system() as tx:
            return await tx.fetch(statement, *values)

    async def open(self, person_id: UUID, organization_id: UUID) -> SessionTokens:
        async with self.db.system() as tx:
            return await self.families.open(tx, person_id, organization_id)


class Sessions(RuleBasedStateMachine):
    """One person, a member of two organizations, and everything that can happen to their sessions."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.families: list[Family] = []
        self.roles: dict[UUID, str | None] = {}

    @initialize()
    def begin(self) -> None:
        first, second = (
            self.world.run(seed_organization(self.world.dsn, f"o{next(self.world.numbers)}")) for _ in range(2)
        )
        self.person_id = first.owner_id
        self.organizations = (first.organization_id, second.organization_id)
        self.roles = {first.organization_id: "owner", second.organization_id: None}

    def now(self) -> datetime:
        return self.world.clock.now()

    def is_live(self, family: Family) -> bool:
        return not family.ended and self.now() < family.expire_time

    def pick(self, number: int) -> Family:
        return self.families[number % len(self.families)]

    def check_tokens(self, tokens: SessionTokens | str, family: Family) -> None:
        """What a client got says what the tables say now."""
        assert isinstance(tokens, SessionTokens), tokens
        claims = read_session_token(tokens.access_token, read_jwks(self.world.keys.jwks_json()), self.now())
        assert (claims.person_id, claims.session_id) == (self.person_id, family.session_id)
        assert (claims.organization_id, claims.role) == (family.organization_id, self.roles[family.organization_id])
        (row,) = self.world.run(
            self.world.fetch(
                "SELECT version FROM memberships WHERE organization_id = $1 AND person_id = $2",
                family.organization_id,
                self.person_id,
            )
        )
        assert claims.membership_version == row["version"]
        assert tokens.expire_time == min(self.now() + timedelta(seconds=SESSION_SECONDS), family.end_time)
        assert tokens.refresh_expire_time == family.expire_time

    @rule(which=st.integers(0, 1))
    def sign_in(self, which: int) -> None:
        organization_id = self.organizations[which]
        tokens = self.world.outcome(self.world.open(self.person_id, organization_id))
        if self.roles[organization_id] is None:
            assert tokens == "ORGANIZATION_NOT_FOUND"
            return
        assert isinstance(tokens, SessionTokens)
        family = Family(
            session_id=tokens.session_id,
            organization_id=organization_id,
            expire_time=self.now() + IDLE,
            end_time=self.now() + LIFE,
            last_use_time=self.now(),
            token=tokens.refresh_token,
        )
        self.families.append(family)
        self.check_tokens(tokens, family)
        live = sorted(filter(self.is_live, self.families), key=lambda each: (each.last_use_time, each.session_id))
        for surplus in live[:-SESSIONS_MAX]:
            surplus.ended = True

    @precondition(lambda self: self.families)
    @rule(number=st.integers(0, 1_000), at_once=st.sampled_from([1, 1, 1, 3]))
    def refresh(self, number: int, at_once: int) -> None:
        family = self.pick(number)

        async def refresh() -> list[SessionTokens | BaseException]:
            calls = (self.world.families.refresh(family.token) for _ in range(at_once))
            return await asyncio.gather(*calls, return_exceptions=True)

        answers = self.world.run(refresh())
        won = [each for each in answers if isinstance(each, SessionTokens)]
        refused = [each.reason() for each in answers if isinstance(each, RpcError)]
        if not self.is_live(family):
            assert refused == ["REFRESH_REFUSED"] * at_once
            return
        if self.roles[family.organization_id] is None:
            assert refused == ["REFRESH_REFUSED"] * at_once
            family.ended = True
            return
        assert (len(won), refused) == (1, ["REFRESH_REFUSED"] * (at_once - 1))
        family.used.append(family.token)
        family.token = won[0].refresh_token
        family.last_use_time = self.now()
        family.expire_time = min(self.now() + IDLE, family.end_time)
        self.check_tokens(won[0], family)
        # Whoever came second has shown a used token.
        family.ended = at_once > 1

    @precondition(lambda self: any(family.used for family in self.families))
    @rule(number=st.integers(0, 1_000), which=st.integers(0, 1_000))
    def show_a_used_token(self, number: int, which: int) -> None:
        used = [family for family in self.families if family.used]
        family = used[number % len(used)]
        token = family.used[which % len(family.used)]
        assert self.world.outcome(self.world.families.refresh(token)) == "REFRESH_REFUSED"
        family.ended = family.ended or self.is_live(family)

    @precondition(lambda self: self.families)
    @rule(number=st.integers(0, 1_000), which=st.integers(0, 1))
    def switch(self, number: int, which: int) -> None:
        family, organization_id = self.pick(number), self.organizations[which]
        moved = self.world.outcome(self.world.families.switch(self.person_id, family.session_id, organization_id))
        if self.roles[organization_id] is None:
            assert moved == "ORGANIZATION_NOT_FOUND"
        elif not self.is_live(family):
            assert moved == "SESSION_ENDED"
        else:
            family.organization_id = organization_id
            self.check_tokens(moved, family)
            assert isinstance(moved, SessionTokens)
            assert not moved.refresh_token

    @precondition(lambda self: self.families)
    @rule(number=st.integers(0, 1_000))
    def sign_out(self, number: int) -> None:
        family = self.pick(number)
        self.world.run(self.world.families.revoke(self.person_id, family.session_id))
        family.ended = True

    @rule(number=st.integers(0, 1_000), keeps=st.booleans())
    def sign_out_everywhere(self, number: int, *, keeps: bool) -> None:
        kept = self.pick(number) if keeps and self.families else None
        ending = [family for family in self.families if self.is_live(family) and family is not kept]
        count = self.world.run(
            self.world.families.revoke_all(self.person_id, except_session=kept.session_id if kept else None)
        )
        assert count == len(ending)
        for family in self.families:
            family.ended = family.ended or family is not kept

    @rule(which=st.integers(0, 1), role=st.sampled_from([*ROLES, None]))
    def change_role(self, which: int, role: str | None) -> None:
        organization_id = self.organizations[which]
        key = (organization_id, self.person_id)
        if role is None:
            self.world.run(
                self.world.fetch("DELETE FROM memberships WHERE organization_id = $1 AND person_id = $2", *key)
            )
        else:
            self.world.run(
                self.world.fetch(
                    "INSERT INTO memberships (organization_id, person_id, role, create_time) VALUES ($1, $2, $3, now())"
                    " ON CONFLICT (organization_id, person_id) DO UPDATE SET role = excluded.role",
                    *key,
                    role,
                )
            )
        self.roles[organization_id] = role

    @rule(which=st.integers(0, 1), state=st.sampled_from(["suspended", "active"]))
    def suspend(self, which: int, state: str) -> None:
        """The people of a suspended organization go on reading and paying, so their sessions go on."""
        statement = "UPDATE organizations SET state = $2 WHERE organization_id = $1"
        self.world.run(self.world.fetch(statement, self.organizations[which], state))

    @rule(hours=st.sampled_from([1, 24, 24 * 6, 24 * IDLE_DAYS_MAX, 24 * 10]))
    def wait(self, hours: int) -> None:
        self.world.clock.advance(hours * 3_600)

    @invariant()
    def the_store_and_the_model_agree(self) -> None:
        if not self.roles:
            return
        listed = self.world.run(self.world.families.list(self.person_id))
        live = sorted(filter(self.is_live, self.families), key=lambda each: each.session_id, reverse=True)
        assert [(each.session_id, each.organization_id, each.expire_time) for each in listed] == [
            (each.session_id, each.organization_id, each.expire_time) for each in live
        ]
        assert len(live) <= SESSIONS_MAX


@pytest.fixture
def world(postgres: TestPostgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(families, "SESSIONS_PER_PERSON_MAX", SESSIONS_MAX)
    with asyncio.Runner() as runner:
        database = runner.run(postgres.clone())
        dsn = database.dsn("auth_system")
        db = runner.run(Database.connect(tenant_dsn=database.dsn("auth"), system_dsn=dsn, name="auth", pool_size_max=3))
        yield World(runner, db, dsn)
        runner.run(db.close())
        runner.run(postgres.drop(database))


def test_sessions_and_their_model_agree_whatever_happens(world: World) -> None:
    class OfThisWorld(Sessions):
        pass

    OfThisWorld.world = world
    run_state_machine_as_test(
        OfThisWorld,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
