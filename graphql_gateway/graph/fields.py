"""Strawberry's decorators with the types that they have: as shipped they make a typed resolver untyped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import strawberry

Resolver = TypeVar("Resolver", bound=Callable[..., Any])


def field(description: str) -> Callable[[Resolver], Resolver]:
    """Make a resolver a field."""
    return cast("Callable[[Resolver], Resolver]", strawberry.field(description=description))


def mutation(description: str) -> Callable[[Resolver], Resolver]:
    """Make a resolver a mutation."""
    return cast("Callable[[Resolver], Resolver]", strawberry.mutation(description=description))
