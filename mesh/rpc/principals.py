"""What is known about principals beyond their tokens: ended sessions, changed memberships, suspended organizations.

A token says what was true when it was signed and stays valid for its whole life. `auth` streams what has changed since
(`WatchPrincipals`); `Principals` holds it and answers three questions for a verifier: is this token's principal still
what the token says, is its organization suspended, and has a service account changed since it was asked for. It is a
state machine and waits for nothing; `mesh.rpc.stream_watch` feeds it.

**Order.** A snapshot comes first and replaces what was held; while it comes in, both the old and the new state refuse.
Changes come in any order and several times: sessions end for good, a membership's and an organization's higher version
wins.

**Bounds.** An ended session and an old version of a membership are forgotten once no token of them can be valid. If
more than `HELD_MAX` are left, those that can be forgotten first give way to one instant: whatever was issued before it
is refused, whosever it is. That refuses too much, never too little, and people get new tokens by renewing their
sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol
from uuid import UUID

from tollway.auth.v1 import organizations_pb2, principals_pb2

from mesh.clock import Clock
from mesh.rpc.tokens import SESSION_SECONDS

KEPT_SECONDS: Final = SESSION_SECONDS + 5 * 60
"""How long a change matters: the life of a token, and a margin for clocks that differ and for slow transactions."""
HELD_MAX: Final = 200_000
SERVICE_ACCOUNT_CHANGES_MAX: Final = 10_000
_UNKNOWN: Final = (0, organizations_pb2.ORGANIZATION_STATE_UNSPECIFIED)
_SUSPENDED: Final = organizations_pb2.ORGANIZATION_STATE_SUSPENDED
_DELETED: Final = organizations_pb2.ORGANIZATION_STATE_DELETED

_Membership = tuple[str, UUID]
_Topic = UUID | _Membership | str | None
"""What somebody waits for: a session or an organization, a membership, a service account; None is an unknown one."""


class Known(Protocol):
    """What is needed of `mesh.rpc.access.Principal`; who is no person has no session and no membership."""

    @property
    def subject(self) -> str:
        """Return the person's or service account's id as a canonical UUID."""
        ...

    @property
    def organization_id(self) -> UUID | None:
        """Return the organization that the credentials are for."""
        ...

    @property
    def session_id(self) -> UUID | None:
        """Return the session that the token belongs to."""
        ...

    @property
    def membership_version(self) -> int:
        """Return the version of the membership that the token was made from."""
        ...

    @property
    def issue_time_s(self) -> float:
        """Return when the token was issued, Unix time in seconds; infinite where that plays no part."""
        ...


@dataclass(slots=True)
class _Held:
    """One state: what a snapshot said and what has changed since."""

    sessions: dict[UUID, int] = field(default_factory=dict)
    """The time at which it may be forgotten: the latest that was said."""
    memberships: dict[_Membership, tuple[int, int]] = field(default_factory=dict)
    """Version and the time at which it may be forgotten."""
    organizations: dict[UUID, tuple[int, int]] = field(default_factory=dict)
    """Version and state."""
    refused_before_s: float = 0.0
    by_forget_time: list[tuple[int, int, UUID | _Membership]] = field(default_factory=list)
    """A heap. The number in the middle keeps things apart that cannot be compared."""
    counter: int = 0

    def put(self, change: principals_pb2.PrincipalChange) -> _Topic:
        """Take a change in and return whom it is about."""
        match change.WhichOneof("change"):
            case "session":
                session_id, forget_time_s = UUID(change.session.session_id), change.session.forget_time_s
                if forget_time_s > self.sessions.get(session_id, 0):
                    self.sessions[session_id] = forget_time_s
                    self._remember(session_id, forget_time_s)
                return session_id
            case "membership":
                return self._put_membership(change.membership)
            case "organization":
                organization_id = UUID(change.organization.organization_id)
                new = change.organization.version, change.organization.state
                self.organizations[organization_id] = max(new, self.organizations.get(organization_id, new))
                return organization_id
            case "service_account":
                return str(UUID(change.service_account.service_account_id))
            case "tokens":
                self.refused_before_s = max(self.refused_before_s, change.tokens.issued_before_time_s)
        # A newer auth may tell what this process does not know yet.
        return None

    def _put_membership(self, changed: principals_pb2.ChangedMembership) -> _Membership:
        membership = str(UUID(changed.person_id)), UUID(changed.organization_id)
        new = changed.version, changed.forget_time_s
        if new > self.memberships.get(membership, (0, 0)):
            self.memberships[membership] = new
            self._remember(membership, changed.forget_time_s)
        return membership

    def _remember(self, what: UUID | _Membership, forget_time_s: int) -> None:
        self.counter += 1
        heapq.heappush(self.by_forget_time, (forget_time_s, self.counter, what))

    def forget(self, now_s: float, held_max: int) -> bool:
        """Drop what no valid token can need, and what is too much; tell whether anything was too much."""
        heap = self.by_forget_time
        while heap and heap[0][0] <= now_s:
            self._drop(heapq.heappop(heap))
        is_too_much = len(heap) > held_max
        while len(heap) > held_max:
            # That is when it changed: no token issued later is concerned.
            self.refused_before_s = max(self.refused_before_s, heap[0][0] - KEPT_SECONDS)
            self._drop(heapq.heappop(heap))
        return is_too_much

    def _drop(self, entry: tuple[int, int, UUID | _Membership]) -> None:
        forget_time_s, _, what = entry
        if isinstance(what, UUID):
            if self.sessions.get(what, 0) <= forget_time_s:
                # Otherwise a later time was said, with an entry of its own.
                self.sessions.pop(what, None)
        elif self.memberships.get(what, (0, 0))[1] <= forget_time_s:
            # Otherwise a newer version stands there, with an entry of its own.
            self.memberships.pop(what, None)


class Principals:
    """Holds what `auth` says about principals.

    Args:
        clock: For forgetting.
        held_max: How many ended sessions and changed memberships are held one by one.
    """

    def __init__(self, *, clock: Clock, held_max: int = HELD_MAX) -> None:
        self._clock = clock
        self._held_max = held_max
        self._held = _Held()
        self._snapshot: _Held | None = None
        self._accounts_changed_at: dict[str, float] = {}
        self._all_accounts_changed_at = float("-inf")
        self._waiting: dict[_Topic, set[asyncio.Event]] = {}
        self.loaded = asyncio.Event()
        """Set once a first snapshot is complete."""

    @classmethod
    def of_tokens_alone(cls, clock: Clock) -> Principals:
        """Return what knows nothing beyond tokens and waits for nothing; for who has no `auth` to ask."""
        principals = cls(clock=clock)
        principals.loaded.set()
        return principals

    @property
    def held_count(self) -> int:
        """Return how many ended sessions and changed memberships are held one by one."""
        return len(self._held.by_forget_time)

    def refuses(self, principal: Known) -> bool:
        """Tell whether a token's principal is no longer what the token says."""
        held = self._held
        organization_id = principal.organization_id
        if principal.session_id in held.sessions or principal.issue_time_s < held.refused_before_s:
            return True
        if organization_id is None:
            return False
        version, _ = held.memberships.get((principal.subject, organization_id), (0, 0))
        return version > principal.membership_version or self._state(organization_id) == _DELETED

    def is_suspended(self, organization_id: UUID | None) -> bool:
        """Tell whether an organization is suspended."""
        return organization_id is not None and self._state(organization_id) == _SUSPENDED

    def is_current(self, service_account_id: str, asked_at: float) -> bool:
        """Tell whether what was asked for at an instant (monotonic seconds) still holds for a service account."""
        changed_at = self._accounts_changed_at.get(service_account_id, self._all_accounts_changed_at)
        return asked_at > max(changed_at, self._all_accounts_changed_at)

    def begin_snapshot(self) -> None:
        """Start taking a snapshot in; what is held stays in force until it is complete."""
        self._snapshot = _Held()

    def receive(self, message: principals_pb2.WatchPrincipalsResponse) -> bool:
        """Take a message in and tell whether it completed the snapshot."""
        for change in message.changes:
            topic = self._held.put(change)
            if self._snapshot is not None:
                self._snapshot.put(change)
            if isinstance(topic, str):
                self._note_account(topic)
            self._wake(topic)
        completed = message.snapshot_complete and self._snapshot is not None
        if completed and self._snapshot is not None:
            self._held, self._snapshot = self._snapshot, None
            self._note_all_accounts()
            self.loaded.set()
        now_s = self._clock.now().timestamp()
        if self._snapshot is not None:
            self._snapshot.forget(now_s, self._held_max)
        if self._held.forget(now_s, self._held_max) or completed:
            self._wake(None)
        return completed

    @contextlib.contextmanager
    def watching(self, principal: Known) -> Iterator[asyncio.Event]:
        """Yield an event that is set whenever something about a principal may have changed.

        Whoever waits clears the event first, looks then, and waits last, so that no change falls in between.
        """
        event = asyncio.Event()
        organization_id = principal.organization_id
        topics: list[_Topic] = [None, principal.subject, principal.session_id, organization_id]
        if organization_id is not None:
            topics.append((principal.subject, organization_id))
        for topic in topics:
            self._waiting.setdefault(topic, set()).add(event)
        try:
            yield event
        finally:
            for topic in topics:
                waiting = self._waiting.get(topic, set())
                waiting.discard(event)
                if not waiting:
                    self._waiting.pop(topic, None)

    def _state(self, organization_id: UUID) -> int:
        return self._held.organizations.get(organization_id, _UNKNOWN)[1]

    def _wake(self, topic: _Topic) -> None:
        for event in self._waiting.get(topic, ()):
            event.set()

    def _note_account(self, service_account_id: str) -> None:
        if len(self._accounts_changed_at) >= SERVICE_ACCOUNT_CHANGES_MAX:
            self._note_all_accounts()
        self._accounts_changed_at[service_account_id] = self._clock.monotonic()

    def _note_all_accounts(self) -> None:
        self._accounts_changed_at.clear()
        self._all_accounts_changed_at = self._clock.monotonic()
