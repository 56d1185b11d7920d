"""Envoy's external authorization (`envoy.service.auth.v3`): the same keys, with Envoy in the edge's place.

What may pass goes on with `X-Tollway-*` fields that say who calls, without the key, and without what clients claim in
names that only a gateway may use (`contract.client_fields`). What may not is answered by Envoy with the problem that
our edge would answer. `docs/envoy.md` has the configuration.

A route says what it needs in `context_extensions`: `scopes` (separated by commas or spaces) and `trusted_hops`. A name
that nobody knows is a mistake that could open a route, so such a request is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import grpc
import structlog
from google.protobuf.struct_pb2 import Struct
from google.rpc.status_pb2 import Status
from tollway.external.envoy.config.core.v3 import base_pb2
from tollway.external.envoy.service.auth.v3 import attribute_context_pb2, external_auth_pb2, external_auth_pb2_grpc
from tollway.external.envoy.type.v3 import http_status_pb2

from contract import client_fields, problems
from contract.problems import SECURITY_HEADERS, body_of
from services.auth.key_checks import KeyChecks, Refused, Shown
from services.auth.model import KeyGrant, KeyMode

SCOPES: Final = "scopes"
TRUSTED_HOPS: Final = "trusted_hops"
TRUSTED_HOPS_MAX: Final = 10
AUTHORIZATION: Final = "authorization"
API_KEY: Final = client_fields.API_KEY.decode()
FORWARDED_FOR: Final = "x-forwarded-for"
REQUEST_ID: Final = "x-request-id"
REQUEST_ID_LENGTH_MAX: Final = 64
# Said by Envoy itself on the way to the upstream; it drops what clients say of them (docs/envoy.md).
_ENVOYS_OWN: Final = ("x-envoy-", REQUEST_ID, FORWARDED_FOR, "x-forwarded-proto", "x-forwarded-client-cert")
_CLAIMS: Final = frozenset(
    name.decode()
    for name in (
        *client_fields.IDENTITIES,
        *client_fields.ADDRESSES,
        *client_fields.OVERRIDES,
        *client_fields.OTHERS,
        b"forwarded",
    )
)
_CLAIM_PREFIXES: Final = (*(prefix.decode() for prefix in client_fields.PREFIXES), "x-forwarded-")
_OVERWRITE: Final = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_CODES: Final = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    500: grpc.StatusCode.INTERNAL,
}

log = structlog.get_logger()


class Misconfigured(Exception):
    """The gateway's configuration asks for something that nobody knows."""


class EnvoyAuthorization(external_auth_pb2_grpc.AuthorizationServicer):
    """Handles `Authorization.Check`.

    Args:
        checks: Decides.
    """

    def __init__(self, checks: KeyChecks) -> None:
        self._checks = checks

    async def Check(self, request: external_auth_pb2.CheckRequest, context: Any) -> external_auth_pb2.CheckResponse:
        """Say whether a request may pass, and with which fields."""
        attributes = request.attributes
        try:
            grant = await self._checks.check(from_attributes(attributes))
        except Refused as refused:
            return to_denied(refused, attributes)
        except Misconfigured as error:
            log.error("envoy_misconfigured", detail=str(error))  # noqa: TRY400 - a configuration needs no stack
            return to_denied(Refused(problems.INTERNAL, "The gateway is not configured well."), attributes)
        return to_passed(grant, attributes)


def from_attributes(attributes: attribute_context_pb2.AttributeContext) -> Shown:
    """Read what a request shows.

    Raises:
        Misconfigured: `context_extensions` says what cannot be understood.
    """
    extensions = attributes.context_extensions
    unknown = set(extensions) - {SCOPES, TRUSTED_HOPS}
    if unknown:
        raise Misconfigured(f"context_extensions: unknown names {sorted(unknown)}")
    return Shown(
        authorizations=_fields(attributes, AUTHORIZATION),
        api_keys=_fields(attributes, API_KEY),
        address=client_address(attributes, _hops(extensions.get(TRUSTED_HOPS, "0"))),
        scopes=frozenset(extensions.get(SCOPES, "").replace(",", " ").split()),
    )


def client_address(attributes: attribute_context_pb2.AttributeContext, trusted_hops: int) -> str:
    """Return the client's address: the peer of the connection, or whom trusted proxies in front of Envoy name.

    Each proxy appends the address that it was called from to `X-Forwarded-For`, Envoy itself included, so with N
    trusted hops the client is the N+1st from the right. What stands further left anybody may have written.

    Args:
        attributes: Of the request.
        trusted_hops: How many proxies of the operator's stand in front of Envoy.
    """
    if not trusted_hops:
        return str(attributes.source.address.socket_address.address)
    named = [each.strip() for each in _fields(attributes, FORWARDED_FOR)]
    # Fewer than there are proxies: somebody came past them, and nobody vouches for an address.
    return named[-trusted_hops - 1] if len(named) > trusted_hops else ""


def to_passed(grant: KeyGrant, attributes: attribute_context_pb2.AttributeContext) -> external_auth_pb2.CheckResponse:
    """Say that a request may pass, with which fields and without which."""
    said = {
        client_fields.ORGANIZATION_ID: str(grant.organization_id),
        client_fields.API_KEY_ID: str(grant.api_key_id),
    }
    further = {client_fields.EXTERNAL_SUBJECT: grant.external_subject, client_fields.PLAN_ID: grant.plan_id}
    said |= {name: value for name, value in further.items() if value and value.isascii() and value.isprintable()}
    # Envoy removes after it has set, so what is set is not among what is removed.
    kept = {name.lower() for name in said}
    names = {name for name in _names(attributes) if _is_claim(name)} | {AUTHORIZATION, API_KEY}
    return external_auth_pb2.CheckResponse(
        status=Status(code=grpc.StatusCode.OK.value[0]),
        ok_response=external_auth_pb2.OkHttpResponse(
            headers=_options(said.items()), headers_to_remove=sorted(names - kept)
        ),
        dynamic_metadata=_metadata(grant),
    )


def to_denied(refused: Refused, attributes: attribute_context_pb2.AttributeContext) -> external_auth_pb2.CheckResponse:
    """Say what Envoy answers."""
    problem = refused.problem
    lines = (problem.headers + SECURITY_HEADERS).decode().split("\r\n")
    headers = [("Content-Type", "application/problem+json")]
    headers += [(name, value) for name, _, value in (line.partition(": ") for line in lines if line)]
    request_id = next(iter(_fields(attributes, REQUEST_ID)), attributes.request.http.id)[:REQUEST_ID_LENGTH_MAX]
    return external_auth_pb2.CheckResponse(
        status=Status(code=_CODES.get(problem.status, grpc.StatusCode.PERMISSION_DENIED).value[0]),
        denied_response=external_auth_pb2.DeniedHttpResponse(
            status=http_status_pb2.HttpStatus(code=problem.status),  # type: ignore[arg-type]  # an enum of HTTP's codes
            headers=_options(headers),
            body=body_of(problem, refused.detail, request_id).decode(),
        ),
    )


def _metadata(grant: KeyGrant) -> Struct:
    """Return what later filters and Envoy's access log may use, under the filter's name."""
    metadata = Struct()
    metadata.update(
        {
            "organization_id": str(grant.organization_id),
            "api_key_id": str(grant.api_key_id),
            "external_subject": grant.external_subject,
            "plan_id": grant.plan_id,
            "test_mode": grant.mode is KeyMode.TEST,
        }
    )
    return metadata


def _fields(attributes: attribute_context_pb2.AttributeContext, name: str) -> tuple[str, ...]:
    """Return the values of a field, however Envoy sends them: apart, or joined with commas.

    It joins fields of some names (`Authorization` among them) even where it is told to send raw headers. No key and no
    bearer token has a comma in it, so what is joined can be told apart again.
    """
    http = attributes.request.http
    values = [
        each.raw_value.decode("latin-1") or each.value for each in http.header_map.headers if each.key.lower() == name
    ]
    if not values and name in http.headers:
        values = [http.headers[name]]
    return tuple(part for value in values for part in value.split(","))


def _names(attributes: attribute_context_pb2.AttributeContext) -> Iterable[str]:
    http = attributes.request.http
    return [*http.headers, *(each.key.lower() for each in http.header_map.headers)]


def _is_claim(name: str) -> bool:
    # Many servers read "_" and "-" as the same.
    name = name.replace("_", "-")
    if name.startswith(_ENVOYS_OWN):
        return False
    return name in _CLAIMS or name.startswith(_CLAIM_PREFIXES)


def _options(fields: Iterable[tuple[str, str]]) -> list[base_pb2.HeaderValueOption]:
    return [
        base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=name, value=value), append_action=_OVERWRITE)
        for name, value in fields
    ]


def _hops(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) > TRUSTED_HOPS_MAX:
        raise Misconfigured(f"context_extensions: {TRUSTED_HOPS} must be 0 to {TRUSTED_HOPS_MAX}")
    return int(text)
