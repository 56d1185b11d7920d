"""What notification knows, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from uuid import UUID


class EmailState(Enum):
    """What became of an e-mail."""

    QUEUED = "queued"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Email:
    """An e-mail that was taken."""

    email_id: UUID
    organization_id: UUID
    recipient: str
    template: str
    parameters: Mapping[str, str] = field(repr=False)
    state: EmailState = EmailState.QUEUED


def sealing_context(organization_id: UUID, email_id: UUID) -> bytes:
    """Return what the sealed parameters of an e-mail are bound to."""
    return organization_id.bytes + email_id.bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A template with its values filled in."""

    subject: str
    text: str
    html: str
