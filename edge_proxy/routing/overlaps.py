"""Routes that no request could ever reach: another one takes all of theirs, or the edge answers by itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

HEALTH_PATHS: Final = frozenset({"/health", "/health/live", "/health/ready"})
ANY_HOST: Final = ""


class Match(Protocol):
    """What a route is for, as the file says it."""

    hosts: list[str]
    path: str | None
    path_prefix: str | None
    methods: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    index: int
    methods: frozenset[str]
    ends_with_slash: bool
    is_slash_distinct: bool

    def hides(self, later: _Place) -> str:
        """Return which methods of a later route this one takes, or nothing."""
        if self.is_slash_distinct and later.is_slash_distinct and self.ends_with_slash != later.ends_with_slash:
            return ""
        if not self.methods:
            return "every method"
        # A later route without methods is the rest of an earlier one with some.
        return ", ".join(sorted(self.methods & later.methods))


class Overlaps:
    """Finds out whether routes take each other's requests, in the file's order.

    Args:
        folds_case: Whether paths that differ in letter case are one.
    """

    def __init__(self, *, folds_case: bool) -> None:
        self._folds_case = folds_case
        self._places: dict[tuple[str, bool, str], list[_Place]] = defaultdict(list)

    def add(self, index: int, match: Match, *, is_slash_distinct: bool) -> Iterable[str]:
        """Yield what is wrong with the match of the next route."""
        path = match.path if match.path is not None else match.path_prefix or "/"
        is_prefix = match.path is None
        yield from _health(path, match.methods, is_prefix=is_prefix)
        place = _Place(
            index=index,
            methods=frozenset(match.methods),
            ends_with_slash=path.endswith("/"),
            is_slash_distinct=is_slash_distinct and not is_prefix,
        )
        hidden: dict[int, str] = {}
        for host in match.hosts or [ANY_HOST]:
            places = self._places[self._shape(path), is_prefix, host]
            for earlier in places:
                if taken := earlier.hides(place):
                    hidden.setdefault(earlier.index, taken)
            places.append(place)
        for earlier_index, taken in hidden.items():
            yield f"routes[{earlier_index}] has the same match and takes {taken} first"

    def _shape(self, path: str) -> str:
        segments = ["{}" if segment.startswith("{") else segment for segment in path.strip("/").split("/")]
        shape = "/".join(segments)
        return shape.lower() if self._folds_case else shape


def _health(path: str, methods: list[str], *, is_prefix: bool) -> Iterable[str]:
    if path.rstrip("/") in HEALTH_PATHS and (not methods or {"GET", "HEAD"} & set(methods)):
        what = "begins with" if is_prefix else "is"
        yield f"{path!r} {what} a path whose GET and HEAD the edge answers by itself"
