"""What clients are told about failures, and what they are not."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest
from graphql import GraphQLError, GraphQLSyntaxError, Source
from strawberry.types import ExecutionResult

from graphql_gateway import errors
from graphql_gateway.entrance.http import failure_headers
from graphql_gateway.failure import HTTP_STATUS, Failure
from graphql_gateway.graph.answer import to_answer
from mesh.rpc.errors import STATUS_METADATA_KEY, FieldViolation, InvalidFields, NotFound, RpcError, Unauthenticated

SECRET = "password=hunter2 at /srv/tollway.py"


class KeyMissing(NotFound):
    """There is no such key."""


def rpc_error(code: grpc.StatusCode, details: str, error: RpcError | None = None) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata()
    if error is not None:
        trailing.add(STATUS_METADATA_KEY, error.to_status().SerializeToString())
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details=details)


def told(error: GraphQLError, *, suggestions: bool = False) -> dict:
    result = ExecutionResult(data={"x": None} if error.path else None, errors=[error])
    (one,) = to_answer(result, request_id="r-1", suggestions=suggestions)["errors"]
    return one


def resolver_error(cause: Exception) -> GraphQLError:
    return GraphQLError(str(cause), path=["x"], original_error=cause)


def test_a_services_words_are_passed_on_only_with_a_reason() -> None:
    with_reason = rpc_error(grpc.StatusCode.NOT_FOUND, "There is no such key.", KeyMissing(metadata={"key": "7"}))
    failure = Failure.received(with_reason)
    assert (failure.code, failure.reason, failure.message) == (
        grpc.StatusCode.NOT_FOUND,
        "KEY_MISSING",
        "There is no such key.",
    )
    assert failure.metadata == {"key": "7"}
    without = Failure.received(rpc_error(grpc.StatusCode.UNKNOWN, SECRET))
    assert (without.code, without.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL_ERROR")
    assert SECRET not in without.message


@pytest.mark.parametrize(
    ("code", "reason", "http_status"),
    [
        (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE", 503),
        (grpc.StatusCode.CANCELLED, "SERVICE_UNAVAILABLE", 503),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "SERVICE_TIMED_OUT", 504),
        (grpc.StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED_YET", 501),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "INTERNAL_ERROR", 500),
        (grpc.StatusCode.PERMISSION_DENIED, "INTERNAL_ERROR", 500),
    ],
)
def test_a_library_is_never_quoted(code: grpc.StatusCode, reason: str, http_status: int) -> None:
    failure = Failure.received(rpc_error(code, SECRET))
    assert (failure.reason, failure.http_status) == (reason, http_status)
    assert SECRET not in str(failure)


def test_every_grpc_code_has_a_status() -> None:
    assert set(HTTP_STATUS) == set(grpc.StatusCode)


def test_a_failure_shows_its_reason_and_its_fields_as_the_schema_names_them() -> None:
    wrong = InvalidFields(
        violations=[FieldViolation(field="allowed_ips.first_one", description="must be an address")],
        retry_after_seconds=1.5,
        metadata={"limit": "5"},
    )
    assert told(resolver_error(Failure.of(wrong))) == {
        "message": "Some fields of the request are not valid.",
        "path": ["x"],
        "extensions": {
            "code": "INVALID_FIELDS",
            "status": "INVALID_ARGUMENT",
            "requestId": "r-1",
            "violations": [{"field": "allowedIps.firstOne", "description": "must be an address"}],
            "metadata": {"limit": "5"},
            "retryAfterSeconds": 1.5,
        },
    }


@pytest.mark.parametrize("cause", [ValueError(SECRET), KeyError(SECRET), GraphQLError(SECRET)])
def test_whatever_else_happens_in_a_resolver_is_masked(cause: Exception) -> None:
    error = told(resolver_error(cause))
    assert error["extensions"]["code"] == "INTERNAL_ERROR"
    assert SECRET not in str(error)


def test_an_error_before_execution_that_is_not_the_querys_fault_is_masked() -> None:
    error = told(GraphQLError(SECRET, original_error=ValueError(SECRET)))
    assert error["extensions"]["code"] == "INTERNAL_ERROR"
    assert SECRET not in str(error)


def test_mistakes_in_a_query_are_explained() -> None:
    syntax = told(GraphQLSyntaxError(Source("{"), 0, "Expected Name, found <EOF>."))
    assert syntax["extensions"]["code"] == "GRAPHQL_PARSE_FAILED"
    assert "Expected Name" in syntax["message"]
    validation = GraphQLError("Cannot query field 'a' on type 'Query'. Did you mean 'apiKeys'?")
    assert told(validation, suggestions=True)["message"].endswith("Did you mean 'apiKeys'?")
    assert told(validation)["message"] == "Cannot query field 'a' on type 'Query'."
    assert told(validation)["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"


def test_a_query_nested_beyond_the_parser_is_too_deep() -> None:
    assert told(GraphQLError("", original_error=RecursionError()))["extensions"]["code"] == "QUERY_TOO_DEEP"


def test_http_is_told_what_it_asks_for_beside_some_statuses() -> None:
    assert failure_headers(Failure.of(Unauthenticated()))["WWW-Authenticate"] == "Bearer"
    assert failure_headers(Failure.of(errors.RateLimited(retry_after_seconds=1.2)))["Retry-After"] == "2"
    assert failure_headers(Failure.of(errors.MethodNotAllowed(metadata={"allow": "GET"})))["Allow"] == "GET"
