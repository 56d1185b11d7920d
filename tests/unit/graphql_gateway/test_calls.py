"""The one way to the services, and what is asked about their health."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import grpc
import grpc.aio
import pytest
from tollway.auth.v1 import auth_service_pb2 as auth
from tollway.billing.v1 import billing_service_pb2 as billing

from graphql_gateway.callers.admission import Admission, AdmissionLimits
from graphql_gateway.callers.identity import ANONYMOUS, REFUSED
from graphql_gateway.callers.scope import RequestScope
from graphql_gateway.callers.sign_ins import SignIns
from graphql_gateway.failure import Failure
from graphql_gateway.graph.accounts.rpcs import CREATE_API_KEY, CREATE_SESSION, GET_ORGANIZATION
from graphql_gateway.graph.billing.rpcs import LIST_PLANS
from graphql_gateway.health import HealthView
from graphql_gateway.rpc.calls import RPC_TIMEOUT_SECONDS, Calls, typed_rpc
from mesh.clock import ManualClock
from mesh.ids import SequenceIds

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Channel:
    """Remembers calls; finds itself, or nothing."""

    def __init__(self, answer: Any = None, *, missing: bool = False) -> None:
        self.answer = answer
        self.missing = missing
        self.opened: list[str] = []
        self.calls: list[dict[str, Any]] = []

    def find(self, _service: Any) -> Any:
        return None if self.missing else self

    def unary_unary(self, path: str, **_serializers: Any) -> Any:
        self.opened.append(path)

        async def call(request: Any, **options: Any) -> Any:
            self.calls.append({"request": request, **options, "metadata": dict(options["metadata"])})
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        return call


def calls(channel: Channel, clock: ManualClock | None = None, **limits: int) -> Calls:
    monotonic = (clock or ManualClock(NOW)).monotonic
    admission = Admission(AdmissionLimits(**limits), monotonic=monotonic)
    sign_ins = SignIns(AdmissionLimits(**limits), monotonic=monotonic)
    return Calls(channel, admission=admission, sign_ins=sign_ins, ids=SequenceIds(), monotonic=monotonic)


def wrong_password() -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAUTHENTICATED, grpc.aio.Metadata(), grpc.aio.Metadata())


def scope(deadline_seconds: float = 15.0) -> RequestScope:
    return RequestScope(
        request_id="r",
        address="192.0.2.1",
        authorization="Bearer t",
        identity=ANONYMOUS,
        deadline_seconds=deadline_seconds,
    )


async def test_a_call_has_the_shorter_of_both_deadlines_and_the_callers_credentials() -> None:
    channel = Channel(auth.Organization())
    clock = ManualClock(NOW)
    way = calls(channel, clock)
    await way.unary(GET_ORGANIZATION, auth.GetOrganizationRequest(), scope())
    clock.advance(13.0)
    await way.unary(GET_ORGANIZATION, auth.GetOrganizationRequest(), scope())
    assert [call["timeout"] for call in channel.calls] == [RPC_TIMEOUT_SECONDS, pytest.approx(2.0)]
    assert {call["metadata"]["authorization"] for call in channel.calls} == {"Bearer t"}
    assert channel.opened == ["/tollway.auth.v1.AuthService/GetOrganization"]
    clock.advance(5.0)
    with pytest.raises(Failure, match="SERVICE_TIMED_OUT"):
        await way.unary(GET_ORGANIZATION, auth.GetOrganizationRequest(), scope())
    assert len(channel.calls) == 2


async def test_an_rpc_that_asks_for_no_credentials_is_sent_none() -> None:
    channel = Channel(billing.ListPlansResponse())
    await calls(channel).unary(LIST_PLANS, billing.ListPlansRequest(), scope())
    assert "authorization" not in channel.calls[0]["metadata"]


async def test_a_call_names_the_callers_address_with_credentials_and_without() -> None:
    channel = Channel(billing.ListPlansResponse())
    way = Calls(
        channel,
        admission=Admission(AdmissionLimits()),
        sign_ins=SignIns(AdmissionLimits()),
        ids=SequenceIds(),
        vouch=lambda scope, _service: (("x-tollway-client-address", scope.address),),
        monotonic=ManualClock(NOW).monotonic,
    )
    await way.unary(LIST_PLANS, billing.ListPlansRequest(), scope())
    await way.unary(GET_ORGANIZATION, auth.GetOrganizationRequest(), scope())
    named = {"x-tollway-client-address": "192.0.2.1"}
    assert [call["metadata"] for call in channel.calls] == [named, {"authorization": "Bearer t", **named}]


async def test_a_request_with_text_that_no_field_can_hold_reaches_no_service() -> None:
    channel = Channel(auth.Organization())
    with pytest.raises(Failure, match="INVALID_FIELDS"):
        await calls(channel).unary(GET_ORGANIZATION, auth.GetOrganizationRequest(organization_id="a\0b"), scope())
    assert channel.calls == []


async def test_a_change_always_has_a_key_of_its_own() -> None:
    channel = Channel(auth.CreateApiKeyResponse())
    way = calls(channel)
    for given in ("mine", "", ""):
        await way.unary(CREATE_API_KEY, auth.CreateApiKeyRequest(idempotency_key=given), scope())
    first, second, third = (call["request"].idempotency_key for call in channel.calls)
    assert first == "mine"
    assert UUID(second) != UUID(third)


async def test_only_changes_that_anyone_may_make_are_taken_from_the_stricter_buckets() -> None:
    channel = Channel(auth.CreateSessionResponse())
    way = calls(channel, sign_in_address_per_minute=1)
    for _ in range(3):
        await way.unary(LIST_PLANS, billing.ListPlansRequest(), scope())
        await way.unary(CREATE_API_KEY, auth.CreateApiKeyRequest(), scope())
    channel.answer = wrong_password()
    for reason in ("INTERNAL_ERROR", "RATE_LIMITED"):
        with pytest.raises(Failure, match=reason):
            await way.unary(CREATE_SESSION, auth.CreateSessionRequest(), scope())


async def test_only_a_sign_in_that_succeeds_gives_its_token_back() -> None:
    channel = Channel(auth.CreateSessionResponse())
    way = calls(channel, sign_in_pair_per_minute=1)
    for _ in range(3):
        await way.unary(CREATE_SESSION, auth.CreateSessionRequest(email="a@b.example"), scope())
    channel.answer = wrong_password()
    with pytest.raises(Failure, match="INTERNAL_ERROR"):
        await way.unary(CREATE_SESSION, auth.CreateSessionRequest(email="a@b.example"), scope())
    with pytest.raises(Failure, match="RATE_LIMITED"):
        await way.unary(CREATE_SESSION, auth.CreateSessionRequest(email="a@b.example"), scope())


async def test_refused_credentials_go_no_further() -> None:
    channel = Channel(auth.Organization())
    here = scope()
    here.identity = REFUSED
    with pytest.raises(Failure, match="CREDENTIALS_INVALID"):
        await calls(channel).unary(GET_ORGANIZATION, auth.GetOrganizationRequest(), here)
    assert channel.calls == []


async def test_each_change_is_counted_and_reads_are_not() -> None:
    channel = Channel(auth.CreateApiKeyResponse())
    way = calls(channel, change_principal_per_minute=2)
    for _ in range(5):
        await way.unary(GET_ORGANIZATION, auth.GetOrganizationRequest(), scope())
    for _ in range(2):
        await way.unary(CREATE_API_KEY, auth.CreateApiKeyRequest(), scope())
    with pytest.raises(Failure, match="RATE_LIMITED"):
        await way.unary(CREATE_API_KEY, auth.CreateApiKeyRequest(), scope())
    assert len(channel.calls) == 7


async def test_a_failed_call_is_kept_for_the_log_and_told_in_public_words() -> None:
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details="ipv4:10.0.0.7:1 refused"
    )
    here = scope()
    with pytest.raises(Failure) as caught:
        await calls(Channel(error)).unary(GET_ORGANIZATION, auth.GetOrganizationRequest(), here)
    assert "10.0.0.7" not in str(caught.value)
    assert here.failures == [
        {
            "rpc": "tollway.auth.v1.AuthService.GetOrganization",
            "code": "UNAVAILABLE",
            "detail": "ipv4:10.0.0.7:1 refused",
        }
    ]


async def test_a_service_that_is_not_installed_is_not_implemented() -> None:
    with pytest.raises(Failure, match="NOT_IMPLEMENTED_YET"):
        await calls(Channel(missing=True)).unary(GET_ORGANIZATION, auth.GetOrganizationRequest(), scope())


def test_a_typed_rpc_has_the_messages_of_the_contract() -> None:
    service = auth.DESCRIPTOR.services_by_name["AuthService"]
    with pytest.raises(TypeError):
        typed_rpc(service, "GetOrganization", auth.GetOrganizationRequest, auth.ApiKey)
    with pytest.raises(KeyError):
        typed_rpc(service, "Nothing", auth.GetOrganizationRequest, auth.Organization)


async def test_services_are_asked_for_their_health_once_a_second() -> None:
    asked: list[str] = []

    async def well() -> None:
        asked.append("well")

    async def ill() -> None:
        raise ConnectionError("10.0.0.7")

    clock = ManualClock(NOW)
    health = HealthView({"a": well, "b": ill}, monotonic=clock.monotonic)
    for _ in range(3):
        response: Any = await health.ready(None)  # type: ignore[arg-type]
        assert response.status == 200
        assert response.text == '{"status": "degraded", "degraded": {"b": "ConnectionError"}}'
    assert len(asked) == 1
    clock.advance(1.0)
    await health.ready(None)  # type: ignore[arg-type]
    assert len(asked) == 2
    health.stopping = True
    assert (await health.ready(None)).status == 503  # type: ignore[arg-type]
    assert (await health.live(None)).status == 200  # type: ignore[arg-type]
