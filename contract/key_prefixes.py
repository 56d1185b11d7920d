"""What imported keys begin with: the one question that decides whether a key of a foreign shape is looked at at all.

A key of our own making has a check sum, so nonsense is refused without asking. Keys that were imported have none, but
they have beginnings, and `auth` sends them all. Whatever begins with none of them is refused like nonsense.
"""

from __future__ import annotations

from collections.abc import Iterable


class Prefixes:
    """A set of beginnings, asked with at most one look-up per length."""

    def __init__(self, prefixes: Iterable[str] = ()) -> None:
        self.listed = tuple(sorted(set(prefixes)))
        self._known = frozenset(prefix.encode("latin-1", "replace") for prefix in self.listed if prefix)
        self._lengths = tuple(sorted({len(prefix) for prefix in self._known}))

    def begin(self, key: bytes) -> bool:
        """Tell whether a key begins with one of them."""
        return any(key[:length] in self._known for length in self._lengths)
