from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tollway.auth.v1 import auth_service_pb2 as auth
from tollway.options.v1 import access_pb2

from mesh.database.pools import Database
from mesh.rpc.access import Principal, PrincipalKind
from services.metering.clients import AuthKeys
from services.metering.ingest import Ingester
from services.metering.model import IngestBatch, Source, UsageQuery
from services.metering.service import UsageService
from tests.support.metering import API_KEY, ORGANIZATION, payload

MEMBER = "01900000-0000-7000-8000-00000000dddd"
OTHER_KEY = uuid.UUID(int=77)


class Auth:
    """Auth's list of keys, one per page."""

    def __init__(self) -> None:
        self.tokens: list[Any] = []

    async def ListApiKeys(self, request: auth.ListApiKeysRequest, metadata: Any) -> auth.ListApiKeysResponse:
        self.tokens.append(dict(metadata)["authorization"])
        if not request.page_token:
            return auth.ListApiKeysResponse(
                api_keys=[auth.ApiKey(api_key_id=str(OTHER_KEY), creator_id="somebody")], next_page_token="2"
            )
        return auth.ListApiKeysResponse(api_keys=[auth.ApiKey(api_key_id=str(API_KEY), creator_id=MEMBER)])


@pytest.mark.parametrize(
    ("role", "platform_roles", "requests", "pages"),
    [
        (access_pb2.ROLE_MEMBER, (), 1, 2),
        (access_pb2.ROLE_MEMBER, (access_pb2.PLATFORM_ROLE_SUPPORT,), 3, 0),
        (access_pb2.ROLE_ADMIN, (), 3, 0),
        (access_pb2.ROLE_OWNER, (), 3, 0),
    ],
)
async def test_members_see_the_usage_of_the_keys_they_created(  # noqa: PLR0917 pytest names what a test stands on
    db: Database, ingester: Ingester, role: Any, platform_roles: Any, requests: int, pages: int
) -> None:
    events = [payload(), payload(api_key_id=OTHER_KEY.bytes), payload(api_key_id=OTHER_KEY.bytes)]
    await ingester.apply([IngestBatch(source=Source(name="j", partition=0), next_offset=3, payloads=events)])
    principal = Principal(
        kind=PrincipalKind.PERSON,
        subject=MEMBER,
        organization_id=ORGANIZATION,
        role=role,
        platform_roles=platform_roles,
        token="theirs",
    )
    now, listed = datetime.now(UTC), Auth()
    query = UsageQuery(
        organization_id=ORGANIZATION,
        start_time=now - timedelta(days=1),
        end_time=now + timedelta(days=1),
        width=None,
        group_by=(),
    )
    (row,) = await UsageService(db=db, own_keys=AuthKeys(listed)).query(query, principal)
    assert row.request_count == requests
    assert listed.tokens == ["Bearer theirs"] * pages
