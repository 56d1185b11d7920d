"""Pages of lists (AIP-158): a bounded size and an opaque, signed token for where the next page starts.

A token carries the key (the id, mostly) of the last row that was shown, so a page costs the same wherever it lies and
rows that are added meanwhile neither repeat nor push others out. It is signed together with what was listed and for
whom: a token that was made up, or taken from another list or tenant, is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from uuid import UUID

from mesh.rpc.errors import Violations

PAGE_SIZE_DEFAULT: Final = 50
PAGE_SIZE_MAX: Final = 100
_TAG_BYTES: Final = 16

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """Which page is wanted: at most `size` rows, behind the row with `after_key`; empty means the first."""

    size: int
    after_key: str

    @property
    def after_id(self) -> UUID | None:
        """Return the key as an id; None on the first page."""
        return UUID(self.after_key) if self.after_key else None

    @property
    def fetch_limit(self) -> int:
        """Return how many rows to read: one more than shown, to know whether there is a next page."""
        return self.size + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Row]):
    """Rows to show and the token of the next page; empty on the last."""

    rows: tuple[Row, ...]
    next_page_token: str


class PageTokens:
    """Makes and checks tokens.

    Args:
        key: What tokens are signed with: the service's own, for nothing else.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def read(self, *, page_size: int, page_token: str, listing: str) -> PageRequest:
        """Check what a caller asks for.

        Args:
            page_size: 1 to `PAGE_SIZE_MAX`; 0 means `PAGE_SIZE_DEFAULT`.
            page_token: Empty for the first page.
            listing: What is listed and for whom, for example `api_keys/<organization>`.

        Raises:
            InvalidFields: Size or token is not valid.
        """
        violations = Violations()
        violations.check(0 <= page_size <= PAGE_SIZE_MAX, "page_size", f"must be 0 to {PAGE_SIZE_MAX}")
        after_key = self._open(page_token, listing) if page_token else ""
        violations.check(after_key is not None, "page_token", "must be the next_page_token of the page before")
        violations.raise_if_any()
        return PageRequest(size=page_size or PAGE_SIZE_DEFAULT, after_key=after_key or "")

    def page(self, rows: Sequence[Row], keys: Sequence[object], *, request: PageRequest, listing: str) -> Page[Row]:
        """Cut what was read to one page.

        Args:
            rows: At most `request.fetch_limit` rows in order.
            keys: What tells them apart and orders them, for example their ids.
            request: What was asked for.
            listing: As for `read`.
        """
        more = len(rows) > request.size
        token = self._seal(str(keys[request.size - 1]), listing) if more else ""
        return Page(rows=tuple(rows[: request.size]), next_page_token=token)

    def _seal(self, last_key: str, listing: str) -> str:
        raw = last_key.encode()
        return base64.urlsafe_b64encode(self._tag(raw, listing) + raw).decode("ascii").rstrip("=")

    def _open(self, token: str, listing: str) -> str | None:
        try:
            raw = base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        except (binascii.Error, ValueError):
            return None
        tag, last_key = raw[:_TAG_BYTES], raw[_TAG_BYTES:]
        return last_key.decode() if hmac.compare_digest(tag, self._tag(last_key, listing)) else None

    def _tag(self, last_key: bytes, listing: str) -> bytes:
        return hmac.digest(self._key, listing.encode() + b"\0" + last_key, hashlib.sha256)[:_TAG_BYTES]
