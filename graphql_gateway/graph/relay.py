"""Ids that name a thing among all things, and cursors, as in the Relay server specification.

An id is `base64("<Type>:<id>")`; an API key's holds its organization as well, because a key is looked up inside one.
Wherever an id is taken, the plain UUID that REST and gRPC use is taken too.

A service gives one token per page, and a connection needs a cursor per edge. So a cursor says which page an edge is on
and how many of its items to skip: `base64("<skip>:<page token>")`. The cursor behind a page's last edge is the next
page's token and stays exact; one in the middle of the first page shifts when something new arrives at the top.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

import strawberry

from graphql_gateway.failure import Failure
from mesh.rpc.errors import FieldViolation, InvalidFields

PAGE_SIZE_MAX: Final = 100
PAGE_SIZE_DEFAULT: Final = 50
CURSOR_LENGTH_MAX: Final = 4_096
_SKIP: Final = re.compile(r"[0-9]{1,3}")

Item = TypeVar("Item")


@strawberry.interface(description="Anything with an id of its own.")
class Node:
    """The interface that `node(id)` answers with."""

    id: strawberry.ID = strawberry.field(description="Names this thing among all things.")


@strawberry.type(description="Where a page lies.")
class PageInfo:
    """Relay's PageInfo."""

    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None


@strawberry.type(description="A thing and its place in a list.")
class Edge(Generic[Item]):
    """Relay's Edge."""

    cursor: str
    node: Item


@strawberry.type(description="A page of a list.")
class Connection(Generic[Item]):
    """Relay's Connection."""

    edges: list[Edge[Item]]
    page_info: PageInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """A place in a list: behind `skip` items of the page that `page_token` starts."""

    page_token: str = ""
    skip: int = 0

    def encode(self) -> str:
        """Return the cursor as clients see it."""
        return _encode(f"{self.skip}:{self.page_token}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """What to ask a service for, to answer `first` items behind `after`."""

    cursor: Cursor
    page_size: int

    @classmethod
    def of(cls, first: int | None, after: str | None) -> PageRequest:
        """Read a connection's arguments.

        Raises:
            Failure: INVALID_FIELDS.
        """
        wanted = PAGE_SIZE_DEFAULT if first is None else first
        if not 1 <= wanted <= PAGE_SIZE_MAX:
            raise _invalid("first", f"must be between 1 and {PAGE_SIZE_MAX}")
        cursor = _read_cursor(after) if after is not None else Cursor()
        # What is skipped is part of the service's page, and a page has a largest size: the answer may be shorter.
        return cls(cursor=cursor, page_size=min(PAGE_SIZE_MAX, cursor.skip + wanted))

    def connection(
        self, items: Sequence[Any], next_page_token: str, convert: Callable[[Any], Item]
    ) -> Connection[Item]:
        """Return the connection for what the service answered."""
        token, skip = self.cursor.page_token, self.cursor.skip
        ends = [Cursor(page_token=token, skip=place) for place in range(skip + 1, len(items) + 1)]
        if ends and next_page_token:
            ends[-1] = Cursor(page_token=next_page_token)
        edges = [Edge(cursor=end.encode(), node=convert(item)) for item, end in zip(items[skip:], ends, strict=True)]
        return Connection(
            edges=edges,
            page_info=PageInfo(
                has_next_page=bool(next_page_token),
                has_previous_page=bool(token or skip),
                start_cursor=edges[0].cursor if edges else None,
                end_cursor=edges[-1].cursor if edges else _page_behind(next_page_token),
            ),
        )


def global_id(type_name: str, *parts: str) -> strawberry.ID:
    """Return the id of a thing."""
    return strawberry.ID(_encode(f"{type_name}:{'/'.join(parts)}"))


def read_global_id(text: str) -> tuple[str, list[str]] | None:
    """Return the type and the parts of an id, or None where it is not one."""
    decoded = _decode(text)
    type_name, colon, rest = (decoded or "").partition(":")
    return (type_name, rest.split("/")) if colon and type_name else None


def organization_id_from(text: str, field: str) -> UUID:
    """Read an organization's id, global or plain.

    Raises:
        Failure: INVALID_FIELDS, for `field`.
    """
    read = read_global_id(text)
    return _uuid(read[1][0] if read is not None and read[0] == "Organization" else text, field)


def api_key_address_from(text: str, field: str) -> tuple[UUID | None, UUID]:
    """Read an API key's id: its organization where the id is global, and the key.

    Raises:
        Failure: INVALID_FIELDS, for `field`.
    """
    read = read_global_id(text)
    if read is not None and read[0] == "ApiKey" and len(read[1]) == 2:
        return _uuid(read[1][0], field), _uuid(read[1][1], field)
    return None, _uuid(text, field)


def _page_behind(next_page_token: str) -> str | None:
    """Return the way on from a page of which everything was skipped."""
    return Cursor(page_token=next_page_token).encode() if next_page_token else None


def _read_cursor(text: str) -> Cursor:
    skip, colon, page_token = (_decode(text) or "").partition(":")
    if not colon or not _SKIP.fullmatch(skip) or int(skip) > PAGE_SIZE_MAX:
        raise _invalid("after", "is no cursor of this list")
    return Cursor(page_token=page_token, skip=int(skip))


def _uuid(text: str, field: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise _invalid(field, "must be an id as it was answered, or a UUID") from None


def _encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(text: str) -> str | None:
    if len(text) > CURSOR_LENGTH_MAX:
        return None
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return None


def _invalid(field: str, description: str) -> Failure:
    return Failure.of(InvalidFields(violations=[FieldViolation(field=field, description=description)]))
