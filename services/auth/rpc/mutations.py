"""Mutations on the wire: whose they are, so that a replay gets the first answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from google.protobuf.message import Message

from mesh.database.idempotency import Mutation, mutation
from mesh.rpc.access import current_principal
from services.auth.audit import INSTALLATION

Result = TypeVar("Result")
Answer = TypeVar("Answer", bound=Message)


def asked_by_caller(
    request: Message,
    answer_type: type[Answer],
    to_answer: Callable[[Result], Answer],
    *,
    organization_id: UUID | None = None,
) -> Mutation[Result, Answer]:
    """Describe a mutation that the caller asks for.

    Args:
        request: As it came.
        answer_type: The message that the RPC answers with.
        to_answer: Makes that message of what the change returns.
        organization_id: Whose it is; one that names none is kept under the caller's.

    Raises:
        InvalidFields: The idempotency key is too long or not printable.
    """
    principal = current_principal()
    return mutation(
        request,
        organization_id=organization_id or principal.organization_id or INSTALLATION,
        principal=principal.subject,
        answer_type=answer_type,
        to_answer=to_answer,
    )
