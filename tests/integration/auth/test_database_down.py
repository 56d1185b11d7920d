"""With its database away auth says so, closes its streams, and is itself again when the database is back."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.rpc.errors import from_grpc
from tests.support.accounts import PASSWORD, seed_key, seed_organization
from tests.support.line import Line, line
from tests.support.postgres import TestDatabase
from tests.support.running_auth import read_to_the_end, running_auth


@pytest.fixture
async def cut_line(database: TestDatabase) -> AsyncIterator[Line]:
    async with line("127.0.0.1", database.access.port) as opened:
        yield opened


@pytest.fixture
async def auth(database: TestDatabase, cut_line: Line) -> AsyncIterator[Any]:
    through = dataclasses.replace(database, access=dataclasses.replace(database.access, port=cut_line.port))
    async with running_auth(through) as running:
        yield running


async def snapshot(auth: Any) -> Any:
    async with asyncio.timeout(60):
        while True:
            call = auth.stub.WatchKeys(pb.WatchKeysRequest(), metadata=auth.process("edge_proxy"))
            try:
                return call, await call.read()
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.05)


async def until_people_are_known(auth: Any, organization_id: str, person: Any) -> None:
    """Returns once auth has read from its own database who was signed out: before that it answers no person."""
    async with asyncio.timeout(60):
        while True:
            try:
                await auth.stub.ListApiKeys(pb.ListApiKeysRequest(organization_id=organization_id), metadata=person)
            except grpc.aio.AioRpcError as error:
                if from_grpc(error).reason != "VERIFIER_UNAVAILABLE":
                    raise
            else:
                return


async def test_auth_says_that_its_database_is_away_and_recovers(
    auth: Any, database: TestDatabase, cut_line: Line
) -> None:
    owner = await seed_organization(database.dsn("auth_system"))
    _, digest = await seed_key(database.dsn("auth_system"), owner.organization_id, owner.owner_id)
    call, first = await snapshot(auth)
    assert [grant.digest for grant in first.grants] == [digest]
    assert (await call.read()).snapshot_complete
    person = auth.person(owner.owner_id, owner.organization_id)
    organization_id = str(owner.organization_id)
    await until_people_are_known(auth, organization_id, person)
    await cut_line.cut()
    with pytest.raises(grpc.aio.AioRpcError) as closed:
        await read_to_the_end(call)
    assert closed.value.code() is grpc.StatusCode.UNAVAILABLE
    edge = auth.process("edge_proxy")
    for refused in (
        auth.stub.ResolveKeys(pb.ResolveKeysRequest(digests=[digest]), metadata=edge),
        auth.stub.CreateSession(pb.CreateSessionRequest(email=owner.email, password=PASSWORD)),
        auth.stub.CreateApiKey(pb.CreateApiKeyRequest(organization_id=organization_id, name="x"), metadata=person),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await refused
        assert from_grpc(error.value).reason == "DATABASE_UNAVAILABLE"
    assert (await auth.stub.GetJwks(pb.GetJwksRequest())).jwks_json
    await cut_line.connect()
    again, first = await snapshot(auth)
    assert [grant.digest for grant in first.grants] == [digest]
    again.cancel()
    answer = await auth.stub.ResolveKeys(pb.ResolveKeysRequest(digests=[digest]), metadata=edge)
    assert len(answer.grants) == 1
