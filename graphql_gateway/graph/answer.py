"""What a GraphQL client is told: data, and errors whose reason programs can compare.

What was not meant for the public is replaced by a sentence of ours and logged.

An error's `extensions` hold `code` (the reason), `status` (the gRPC code), `requestId` and, where they apply,
`violations`, `metadata` and `retryAfterSeconds`. Fields are named as in this schema, in lowerCamelCase.
"""

from __future__ import annotations

import re
from typing import Any, Final

import structlog
from graphql import GraphQLError, GraphQLSyntaxError
from strawberry.types import ExecutionResult
from strawberry.utils.str_converters import to_camel_case

from graphql_gateway import errors
from graphql_gateway.failure import Failure
from graphql_gateway.traces import frames_of

PARSE_FAILED: Final = "GRAPHQL_PARSE_FAILED"
VALIDATION_FAILED: Final = "GRAPHQL_VALIDATION_FAILED"
ERRORS_MAX: Final = 20

_SUGGESTION: Final = re.compile(r" ?Did you mean .*$", re.DOTALL)
_PARSER_LIMITS: Final = (
    (re.compile(r"Document contains more (than|that) \d+ tokens"), errors.QueryTooLong),
    (re.compile(r"Document is nested too deeply"), errors.QueryTooDeep),
)

log = structlog.get_logger()


def to_answer(result: ExecutionResult, *, request_id: str, suggestions: bool) -> dict[str, Any]:
    """Return the body of an answer.

    Args:
        result: What executing the operation gave.
        request_id: For whoever reports a problem.
        suggestions: Whether errors may name fields of the schema that the query did not.
    """
    answer: dict[str, Any] = {}
    if result.errors:
        told = [_to_error(error, request_id, suggestions=suggestions) for error in result.errors[:ERRORS_MAX]]
        answer["errors"] = told
    if result.data is not None or not result.errors or any(error.path for error in result.errors):
        answer["data"] = result.data
    return answer


def failure_answer(failure: Failure, request_id: str) -> dict[str, Any]:
    """Return the body of an answer to a request that was not executed."""
    return {"errors": [{"message": failure.message, "extensions": _extensions(failure, request_id)}]}


def _to_error(error: GraphQLError, request_id: str, *, suggestions: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"message": error.message}
    if error.locations:
        told["locations"] = [{"line": one.line, "column": one.column} for one in error.locations]
    if error.path:
        told["path"] = error.path
    failure = _failure_in(error)
    if failure is not None:
        told["message"] = failure.message
        told["extensions"] = _extensions(failure, request_id)
        return told
    if not suggestions:
        told["message"] = _SUGGESTION.sub("", error.message)
    code = PARSE_FAILED if isinstance(error, GraphQLSyntaxError) else VALIDATION_FAILED
    told["extensions"] = {"code": code, "status": "INVALID_ARGUMENT", "requestId": request_id}
    return told


def _failure_in(error: GraphQLError) -> Failure | None:
    """Return what went wrong in our words; None where it is the query's own fault and graphql-core says how."""
    cause = _cause(error)
    if isinstance(cause, Failure):
        return cause
    if isinstance(cause, RecursionError) and not error.path:
        return Failure.of(errors.QueryTooDeep())
    if isinstance(error, GraphQLSyntaxError):
        for pattern, reason in _PARSER_LIMITS:
            if pattern.search(error.message):
                return Failure.of(reason())
    if not error.path and (cause is None or isinstance(cause, GraphQLError)):
        return None
    log.error("graphql_unexpected_error", path=error.path, frames=frames_of(cause or error))
    return Failure.internal()


def _cause(error: GraphQLError) -> Exception | None:
    cause = error.original_error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    return cause


def _extensions(failure: Failure, request_id: str) -> dict[str, Any]:
    extensions: dict[str, Any] = {"code": failure.reason, "status": failure.code.name, "requestId": request_id}
    if failure.violations:
        extensions["violations"] = [
            {"field": _camel_path(v.field), "description": v.description} for v in failure.violations
        ]
    if failure.metadata:
        extensions["metadata"] = failure.metadata
    if failure.retry_after_seconds is not None:
        extensions["retryAfterSeconds"] = failure.retry_after_seconds
    return extensions


def _camel_path(path: str) -> str:
    return ".".join(to_camel_case(part) for part in path.split("."))
