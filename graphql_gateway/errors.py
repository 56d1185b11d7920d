"""Reasons that the gateway itself gives; everything else is a service's reason, passed on."""

from __future__ import annotations

import grpc

from mesh.rpc import errors


class RateLimited(errors.ResourceExhausted):
    """Too many requests; slow down."""


class ServiceUnavailable(errors.Unavailable):
    """A service that is needed for this cannot be reached at the moment; try again."""


class ServiceTimedOut(errors.RpcError):
    """A service that is needed for this did not answer in time; try again."""

    grpc_code = grpc.StatusCode.DEADLINE_EXCEEDED


class NotImplementedYet(errors.RpcError):
    """This installation does not offer this."""

    grpc_code = grpc.StatusCode.UNIMPLEMENTED


class OrganizationNeeded(errors.InvalidArgument):
    """Name an organization, or send a token that belongs to one."""


class NodeNotFound(errors.NotFound):
    """There is no such node."""


class RouteNotFound(errors.NotFound):
    """There is nothing at this address."""


class MethodNotAllowed(errors.InvalidArgument):
    """This address does not take this method; see the Allow header."""


class RequestNotReadable(errors.InvalidArgument):
    """This is no valid HTTP/1.1 request."""


class HeadTooLarge(errors.InvalidArgument):
    """The request line or the header fields are larger than the gateway takes."""


class HeadTooSlow(errors.InvalidArgument):
    """The header fields did not arrive in time."""


class ExpectationFailed(errors.InvalidArgument):
    """The only expectation that can be met is 100-continue."""


class TooManyConnections(errors.ResourceExhausted):
    """There are too many open connections from this address; close some, or use one for several requests."""


class BodyNotReadable(errors.InvalidArgument):
    """The body is not a JSON object in UTF-8."""


class BodyTooLarge(errors.InvalidArgument):
    """The body is larger than the gateway takes."""


class BodyTooSlow(errors.InvalidArgument):
    """The body did not arrive in time."""


class ContentEncodingNotSupported(errors.InvalidArgument):
    """The body must not be compressed."""


class MediaTypeNotSupported(errors.InvalidArgument):
    """The body must be application/json."""


class BatchingNotOffered(errors.InvalidArgument):
    """Send one operation a request."""


class QueryMissing(errors.InvalidArgument):
    """The request has no query."""


class QueryTooLong(errors.InvalidArgument):
    """The query has more tokens than are allowed."""


class QueryTooDeep(errors.InvalidArgument):
    """The query is nested deeper than is allowed."""


class TooManyAliases(errors.InvalidArgument):
    """The query has more aliases than are allowed."""


class TooManyDirectives(errors.InvalidArgument):
    """The query has more directives than are allowed."""


class QueryTooCostly(errors.InvalidArgument):
    """The query asks for more than one request may; ask for less at a time."""


class IntrospectionDisabled(errors.PermissionDenied):
    """Introspection is off on this installation."""
