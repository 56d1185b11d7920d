"""A real auth refuses every forged token in the same words; a flood of them makes it ask for keys rarely."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.rpc.errors import from_grpc
from tests.support import forged_tokens
from tests.support.forged_tokens import FORGERIES


async def ask(auth: Any, token: str) -> str:
    """The reason of the refusal of what needs a session, or an empty string."""
    metadata = [("authorization", f"Bearer {token}")]
    try:
        await auth.stub.ListSessions(pb.ListSessionsRequest(), metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return from_grpc(error).reason
    return ""


async def test_a_good_token_passes_and_every_forged_one_is_refused(auth: Any) -> None:
    assert await ask(auth, forged_tokens.good()) == ""
    reasons = {name: await ask(auth, make()) for name, make in FORGERIES.items()}
    assert len(reasons) > 100
    assert {name: reason for name, reason in reasons.items() if reason != "CREDENTIALS_INVALID"} == {}
    assert await ask(auth, forged_tokens.good()) == ""


async def test_a_flood_of_unknown_keys_reads_the_keys_once_a_second_at_most(
    auth: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    jwks_json = auth.signing_keys.jwks_json

    def count() -> str:
        asked.append(True)
        return str(jwks_json())

    monkeypatch.setattr(auth.signing_keys, "jwks_json", count)
    tokens = (forged_tokens.forge(headers={"kid": f"{number:016x}"}) for number in range(300))
    began = asyncio.get_running_loop().time()
    assert set(await asyncio.gather(*(ask(auth, token) for token in tokens))) == {"CREDENTIALS_INVALID"}
    assert len(asked) <= 1 + (asyncio.get_running_loop().time() - began)
