"""Protos and rows of ratelimit to its values and back."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tollway.ratelimit.v1 import ratelimit_service_pb2 as pb

from contract.windows import Window, WindowKind, WindowScope, from_message
from services.ratelimit.model import Policy


def from_policy(message: pb.Policy) -> Policy:
    """Read a policy that has been checked."""
    return Policy(
        organization_id=UUID(message.organization_id),
        version=message.version,
        windows=tuple(from_message(window) for window in message.windows),
    )


def to_policy(policy: Policy) -> pb.Policy:
    """Write a policy."""
    return pb.Policy(
        organization_id=str(policy.organization_id),
        version=policy.version,
        windows=[
            pb.Window(
                name=window.name,
                kind=pb.WindowKind.ValueType(window.kind),
                limit=window.limit,
                period_seconds=window.period_seconds,
                scope=pb.WindowScope.ValueType(window.scope),
                counts_billable_only=window.counts_billable_only,
            )
            for window in policy.windows
        ],
    )


def from_document(organization_id: UUID, version: int, windows: list[dict[str, Any]]) -> Policy:
    """Read a policy out of its row."""
    return Policy(
        organization_id=organization_id,
        version=version,
        windows=tuple(
            Window(
                name=window["name"],
                kind=WindowKind[window["kind"]],
                scope=WindowScope[window["scope"]],
                limit=window["limit"],
                period_seconds=window["period_seconds"],
                counts_billable_only=window["counts_billable_only"],
            )
            for window in windows
        ),
    )


def to_document(policy: Policy) -> list[dict[str, Any]]:
    """Write a policy's windows for its row; kinds and scopes by name, so that the row explains itself."""
    return [
        {
            "name": window.name,
            "kind": window.kind.name,
            "scope": window.scope.name,
            "limit": window.limit,
            "period_seconds": window.period_seconds,
            "counts_billable_only": window.counts_billable_only,
        }
        for window in policy.windows
    ]
