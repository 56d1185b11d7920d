"""Dead letters on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from tollway.metering.v1 import metering_service_pb2 as pb

from mesh.pagination import PageTokens
from mesh.rpc.access import current_principal
from mesh.rpc.errors import Violations
from services.metering.dead_letters import DeadLetters
from services.metering.model import DeadLetterKey, DeadLetterPlace, DeadReason, LetterState, StoredLetter

LETTERS_PER_CALL_MAX: Final = 100
HASH_HEX_LENGTH: Final = 32

_STATES: Final = {
    pb.DEAD_LETTER_STATE_UNSPECIFIED: LetterState.WAITING,
    pb.DEAD_LETTER_STATE_WAITING: LetterState.WAITING,
    pb.DEAD_LETTER_STATE_REPLAYED: LetterState.REPLAYED,
    pb.DEAD_LETTER_STATE_DROPPED: LetterState.DROPPED,
}


class DeadLetterRpcs:
    """Handles the RPCs about dead letters.

    Args:
        letters: The rules.
        page_tokens: Pages.
    """

    def __init__(self, letters: DeadLetters, page_tokens: PageTokens) -> None:
        self._letters = letters
        self._page_tokens = page_tokens

    async def ListDeadLetters(self, request: pb.ListDeadLettersRequest, context: Any) -> pb.ListDeadLettersResponse:
        """List dead letters in one state."""
        violations = Violations()
        violations.check(request.state in _STATES, "state", "must be a known state")
        violations.raise_if_any()
        state = _STATES[request.state]
        listing = f"dead_letters/{state.value}"
        wanted = self._page_tokens.read(page_size=request.page_size, page_token=request.page_token, listing=listing)
        after = from_place_text(wanted.after_key) if wanted.after_key else None
        found = await self._letters.list(state, after=after, limit=wanted.fetch_limit)
        page = self._page_tokens.page(
            found, [to_place_text(letter.place) for letter in found], request=wanted, listing=listing
        )
        return pb.ListDeadLettersResponse(
            dead_letters=[to_dead_letter(letter) for letter in page.rows], next_page_token=page.next_page_token
        )

    async def GetDeadLetter(self, request: pb.GetDeadLetterRequest, context: Any) -> pb.DeadLetter:
        """Get one dead letter with its payload."""
        violations = Violations()
        key = _key(request.dead_letter_id, "dead_letter_id", violations)
        violations.raise_if_any()
        letter = await self._letters.get(key)
        answer = to_dead_letter(letter)
        answer.payload = letter.payload
        return answer

    async def ReplayDeadLetters(
        self, request: pb.ReplayDeadLettersRequest, context: Any
    ) -> pb.ReplayDeadLettersResponse:
        """Take dead letters in again."""
        keys = _keys(list(request.dead_letter_ids))
        found = await self._letters.replay(
            keys, organization_id=UUID(request.organization_id), actor=current_principal().subject
        )
        return pb.ReplayDeadLettersResponse(dead_letters=[to_dead_letter(letter) for letter in found])

    async def DropDeadLetters(self, request: pb.DropDeadLettersRequest, context: Any) -> pb.DropDeadLettersResponse:
        """Give dead letters up."""
        keys = _keys(list(request.dead_letter_ids))
        found = await self._letters.drop(
            keys, organization_id=UUID(request.organization_id), actor=current_principal().subject
        )
        return pb.DropDeadLettersResponse(dead_letters=[to_dead_letter(letter) for letter in found])


def to_dead_letter(letter: StoredLetter) -> pb.DeadLetter:
    """Write a dead letter, without its payload."""
    answer = pb.DeadLetter(
        dead_letter_id=to_key_text(letter.place.key),
        reason=pb.DeadLetterReason.Value(f"DEAD_LETTER_REASON_{letter.place.key.reason.name}"),
        detail=letter.detail,
        source=letter.source.name,
        source_partition=letter.source.partition,
        state=pb.DeadLetterState.Value(f"DEAD_LETTER_STATE_{letter.state.name}"),
        resolver=letter.resolver or "",
    )
    answer.create_time.FromDatetime(letter.place.create_time)
    if letter.resolve_time is not None:
        answer.resolve_time.FromDatetime(letter.resolve_time)
    return answer


def to_key_text(key: DeadLetterKey) -> str:
    """Write the id of a dead letter."""
    return f"{key.payload_hash.hex()}-{key.reason.value}"


def from_key_text(text: str) -> DeadLetterKey:
    """Read the id of a dead letter.

    Raises:
        ValueError: It is none.
    """
    digest, _, reason = text.partition("-")
    if len(digest) != HASH_HEX_LENGTH:
        raise ValueError(text)
    return DeadLetterKey(payload_hash=bytes.fromhex(digest), reason=DeadReason(reason))


def to_place_text(place: DeadLetterPlace) -> str:
    """Write a place in the list, for a page token."""
    return f"{place.create_time.isoformat()} {to_key_text(place.key)}"


def from_place_text(text: str) -> DeadLetterPlace:
    """Read a place in the list."""
    create_time, _, key = text.partition(" ")
    return DeadLetterPlace(create_time=datetime.fromisoformat(create_time), key=from_key_text(key))


def _keys(texts: list[str]) -> list[DeadLetterKey]:
    violations = Violations()
    violations.check(
        1 <= len(texts) <= LETTERS_PER_CALL_MAX, "dead_letter_ids", f"must be 1 to {LETTERS_PER_CALL_MAX} dead letters"
    )
    violations.check(len(set(texts)) == len(texts), "dead_letter_ids", "must name each dead letter once")
    violations.raise_if_any()
    keys = [_key(text, f"dead_letter_ids[{index}]", violations) for index, text in enumerate(texts)]
    violations.raise_if_any()
    return keys


def _key(text: str, field: str, violations: Violations) -> DeadLetterKey:
    try:
        return from_key_text(text)
    except ValueError:
        violations.add(field, "must be the dead_letter_id of a dead letter")
        return DeadLetterKey(payload_hash=b"", reason=DeadReason.INVALID)
