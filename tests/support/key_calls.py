"""Calls about API keys that several tests make."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf import timestamp_pb2
from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.rpc.errors import ReceivedError, from_grpc
from tests.support.accounts import SeededOrganization


def owner_of(auth: Any, organization: SeededOrganization) -> Any:
    return auth.person(organization.owner_id, organization.organization_id)


def create_request(organization: SeededOrganization, **fields: Any) -> pb.CreateApiKeyRequest:
    return pb.CreateApiKeyRequest(organization_id=str(organization.organization_id), **{"name": "ci", **fields})


def update_request(
    organization: SeededOrganization, api_key_id: str, *paths: str, **fields: Any
) -> pb.UpdateApiKeyRequest:
    """Asks for the fields that are given to be changed, and for those that are named to be cleared."""
    request = pb.UpdateApiKeyRequest(
        organization_id=str(organization.organization_id), api_key=pb.ApiKey(api_key_id=api_key_id, **fields)
    )
    request.update_mask.paths.extend([*fields, *paths])
    return request


def rotate_request(
    organization: SeededOrganization, api_key_id: str, overlap: timedelta | None = None, **fields: Any
) -> pb.RotateApiKeyRequest:
    request = pb.RotateApiKeyRequest(organization_id=str(organization.organization_id), api_key_id=api_key_id, **fields)
    if overlap is not None:
        request.overlap.FromTimedelta(overlap)
    return request


async def refusal(call: Any) -> ReceivedError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_grpc(refused.value)


async def resolve(auth: Any, digest: bytes) -> pb.KeyGrant | None:
    answer = await auth.stub.ResolveKeys(pb.ResolveKeysRequest(digests=[digest]), metadata=auth.process("edge_proxy"))
    return answer.grants[0] if answer.grants else None


def in_future(**values: float) -> timestamp_pb2.Timestamp:
    timestamp = timestamp_pb2.Timestamp()
    timestamp.FromDatetime(datetime.now(UTC) + timedelta(**values))
    return timestamp
