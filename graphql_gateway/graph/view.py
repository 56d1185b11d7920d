"""`POST /graphql`: one operation a request, as in the GraphQL over HTTP specification (draft, 2025).

There is no GET and the media type must be JSON, so no page of another origin can send a query with a visitor's
credentials. Answers are `application/graphql-response+json` with a telling status where the client accepts that, else
`application/json` with 200 for whatever was a well-formed GraphQL request.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import hdrs, web
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types.graphql import OperationType

from graphql_gateway import errors, metrics
from graphql_gateway.callers.scope import RequestScope
from graphql_gateway.entrance.http import SCOPE, read_json_object
from graphql_gateway.failure import Failure
from graphql_gateway.graph.answer import failure_answer, to_answer
from graphql_gateway.graph.context import GraphContext
from graphql_gateway.graph.cost import RowAllowance
from graphql_gateway.graph.loaders import Loaders
from graphql_gateway.graph.schema import Schema
from graphql_gateway.rpc.calls import Calls
from mesh.rpc.errors import FieldViolation, InvalidFields

RESPONSE_TYPE: Final = "application/graphql-response+json"
OPERATION_NAME_LENGTH_MAX: Final = 100
_OFFERED: Final = frozenset({OperationType.QUERY, OperationType.MUTATION})


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What a client sent."""

    query: str
    variables: dict[str, Any]
    name: str | None


class GraphView:
    """Executes operations.

    Args:
        schema: What may be asked.
        calls: The way to the services.
        suggestions: Whether errors may name fields that the query did not.
        rows_max: Rows that one document is answered.
    """

    def __init__(self, schema: Schema, calls: Calls, *, suggestions: bool, rows_max: int) -> None:
        self._schema = schema
        self._calls = calls
        self._suggestions = suggestions
        self._rows_max = rows_max

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one operation; any method but POST is refused."""
        if request.method != hdrs.METH_POST:
            raise Failure.of(errors.MethodNotAllowed(metadata={"allow": hdrs.METH_POST}))
        scope = request[SCOPE]
        typed = RESPONSE_TYPE in request.headers.get("Accept", "")
        try:
            operation = read_operation(await read_json_object(request))
            scope.operation = (operation.name or "")[:OPERATION_NAME_LENGTH_MAX]
            answer = await self._execute(operation, scope)
        except Failure as failure:
            metrics.operation_done("none", "refused")
            answer = failure_answer(failure, scope.request_id)
            return _response(answer, status=failure.http_status, typed=typed)
        refused = "data" not in answer
        metrics.operation_done(_kind(operation), "refused" if refused else "error" if "errors" in answer else "ok")
        return _response(answer, status=400 if refused and typed else 200, typed=typed)

    async def _execute(self, operation: Operation, scope: RequestScope) -> dict[str, Any]:
        context = GraphContext(
            scope=scope, calls=self._calls, loaders=Loaders(self._calls, scope), rows=RowAllowance(self._rows_max)
        )
        try:
            result = await self._schema.execute(
                operation.query,
                variable_values=operation.variables,
                context_value=context,
                operation_name=operation.name,
                allowed_operation_types=_OFFERED,
            )
        except (CannotGetOperationTypeError, InvalidOperationTypeError):
            raise _invalid("operationName", "must name one query or mutation of the document") from None
        return to_answer(result, request_id=scope.request_id, suggestions=self._suggestions)


def read_operation(body: Any) -> Operation:
    """Read the members of a request.

    Raises:
        Failure: They are not what the specification says.
    """
    if isinstance(body, list):
        raise Failure.of(errors.BatchingNotOffered())
    query, variables, name = body.get("query"), body.get("variables"), body.get("operationName")
    if not isinstance(query, str) or not query.strip():
        raise Failure.of(errors.QueryMissing())
    if variables is not None and not isinstance(variables, dict):
        raise _invalid("variables", "must be an object")
    if name is not None and not isinstance(name, str):
        raise _invalid("operationName", "must be a string")
    return Operation(query=query, variables=variables or {}, name=name or None)


def _kind(operation: Operation) -> str:
    return "mutation" if operation.query.lstrip().startswith("mutation") else "query"


def _response(answer: dict[str, Any], *, status: int, typed: bool) -> web.Response:
    return web.Response(
        text=json.dumps(answer, ensure_ascii=False, separators=(",", ":"), default=str),
        status=status,
        content_type=RESPONSE_TYPE if typed else "application/json",
        headers={"Cache-Control": "no-store"},
    )


def _invalid(field: str, description: str) -> Failure:
    return Failure.of(InvalidFields(violations=[FieldViolation(field=field, description=description)]))
