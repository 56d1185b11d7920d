from __future__ import annotations

import asyncio
import json
from uuid import UUID

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tollway.events.v1 import usage_event_pb2 as events

from tests.support.edge_fakes import API_KEY, ORGANIZATION, answer


async def test_request_is_forwarded_and_its_event_reaches_metering(edge):
    got = await edge.request("/items/42?full=1")
    assert (got.status, got.body) == (200, b"hello")
    (event,) = await edge.events(1)
    assert event.id == UUID(got.headers["x-request-id"]).bytes
    assert UUID(bytes=event.id).version == 7
    assert (event.organization_id, event.api_key_id) == (ORGANIZATION.bytes, API_KEY.bytes)
    assert (event.route_id, event.method, event.path_template) == ("item", "GET", "/items/{item_id}")
    assert (event.status, event.outcome, event.cost_units) == (200, events.OUTCOME_ANSWERED, 3)
    assert event.response_bytes == 5
    assert 0 < event.upstream_latency_us <= event.duration_us
    assert not event.test_mode


async def test_upstream_sees_the_request_with_the_edges_own_fields_only(edge):
    await edge.request(
        "/x",
        headers="X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Request-Id: mine\r\n"
        "X-Tollway-Organization-Id: no\r\nConnection: x-gone\r\nX-Gone: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
        "Proxy-Authorization: x\r\nVia: 1.0 other\r\nX-Kept: 1\r\n",
    )
    head = edge.upstream.heads[0].decode()
    lowered = head.lower()
    assert head.startswith("GET /x HTTP/1.1\r\n")
    assert f"host: 127.0.0.1:{edge.upstream.port}" in lowered
    assert "6.6.6.6" not in head
    assert 'forwarded: for=127.0.0.1;host="edge.test";proto=http' in lowered
    assert "x-forwarded-for: 127.0.0.1\r\n" in lowered
    assert "via: 1.0 other, 1.1 tollway\r\n" in lowered
    assert "x-request-id: mine" not in lowered
    assert lowered.count("x-request-id:") == 1
    assert f"x-tollway-organization-id: {ORGANIZATION}" in lowered
    assert "x-kept: 1" in lowered
    for gone in (
        "x-gone",
        "keep-alive",
        "\r\nte:",
        "proxy-authorization",
        edge.key,
        "authorization",
        "\r\nconnection:",
    ):
        assert gone not in lowered


async def test_rewrite_changes_the_upstreams_path(edge):
    await edge.request("/v9/api/users?q=1")
    assert edge.upstream.heads[0].startswith(b"GET /base/api/users?q=1 HTTP/1.1\r\n")


async def test_route_without_key_forwards_credentials_and_records_nothing(edge):
    got = await edge.request("/open/x", key="", headers="Authorization: Basic abc\r\n")
    assert got.status == 200
    assert b"Authorization: Basic abc\r\n" in edge.upstream.heads[0]
    await edge.request("/x")
    (event,) = await edge.events(1)
    assert event.route_id == "api"


async def test_own_answers_are_problems_with_request_id_and_security_headers(edge):
    got = await edge.request("/x", key="")
    document = json.loads(got.body)
    assert got.status == document["status"] == 401
    assert got.headers["content-type"] == "application/problem+json"
    assert document["type"] == "/problems/key-missing"
    assert document["request_id"] == got.headers["x-request-id"]
    assert got.headers["www-authenticate"].startswith("Bearer")
    assert got.headers["x-content-type-options"] == "nosniff"


async def test_keep_alive_connection_serves_pipelined_requests_in_order(edge):
    one = f"GET /{{}} HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\n\r\n"
    async with edge.connection() as (reader, writer):
        writer.write("".join(one.format(n) for n in range(5)).encode())
        for _ in range(5):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(5) == b"hello"
    assert [head.split()[1] for head in edge.upstream.heads] == [b"/0", b"/1", b"/2", b"/3", b"/4"]
    assert edge.upstream.connections == 1


@pytest.mark.parametrize("extra", ["", "Connection: keep-alive\r\n"])
async def test_http_10_client_gets_an_answer_and_a_closed_connection(edge, extra):
    raw = await edge.raw(f"GET /x HTTP/1.0\r\nX-API-Key: {edge.key}\r\n{extra}\r\n".encode())
    assert raw.startswith(b"HTTP/1.1 200")
    assert raw.endswith(b"hello")


async def test_head_and_204_and_304_have_no_body(edge):
    edge.upstream.script = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")
    got = await edge.request("/x", method="HEAD")
    assert (got.status, got.body, got.headers["content-length"]) == (200, b"", "1234")
    edge.upstream.script = answer(b"HTTP/1.1 204 No Content\r\n\r\n")
    got = await edge.request("/x")
    assert (got.status, got.body) == (204, b"")
    assert "content-length" not in got.headers
    assert "transfer-encoding" not in got.headers
    edge.upstream.script = answer(b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n')
    got = await edge.request("/x")
    assert (got.status, got.body, got.headers["etag"]) == (304, b"", '"a"')


async def test_expect_continue_is_answered_before_the_body_is_read(edge):
    async with edge.connection() as (reader, writer):
        writer.write(
            f"POST /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\n"
            "Content-Length: 3\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        async with asyncio.timeout(30):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"abc")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert b"expect" not in edge.upstream.heads[0].lower()


async def test_expect_continue_of_a_refused_request_gets_the_refusal_only(edge):
    raw = await edge.raw(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 401")
    assert b"100 Continue" not in raw


async def test_traceparent_is_passed_on_or_made(edge):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    await edge.request("/x", headers=f"traceparent: {trace}\r\n")
    assert f"traceparent: {trace}\r\n".encode() in edge.upstream.heads[0]
    await edge.request("/x", headers="traceparent: nonsense\r\n")
    assert b"nonsense" not in edge.upstream.heads[1]
    assert b"traceparent: 00-" in edge.upstream.heads[1]


async def test_health_on_the_public_port(edge):
    assert (await edge.request("/health/live", key="")).status == 200
    got = await edge.request("/health/ready", key="")
    assert (got.status, json.loads(got.body)) == (200, {"status": "ready", "degraded": []})


async def test_drain_finishes_what_is_in_flight(surroundings):
    edge = surroundings
    await edge.start()
    await edge.healthy()
    release = asyncio.Event()

    async def slow(head, reader, writer):
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        return True

    edge.upstream.script = slow
    request = asyncio.create_task(edge.request("/x"))
    await edge.until(lambda: edge.upstream.heads)
    stopping = asyncio.create_task(edge.stop())
    await edge.until(lambda: edge.worker.server.is_draining)
    assert not stopping.done()
    release.set()
    got = await request
    assert (got.status, got.body, got.headers["connection"]) == (200, b"hello", "close")
    await stopping
    assert len(edge.backend.metering.events) == 1
    assert list((edge.data_dir / "journal").iterdir()) == []


async def test_wrong_routes_file_is_refused_and_the_old_one_kept(edge, monkeypatch):
    monkeypatch.setenv("TOLLWAY_UPSTREAM_URL", edge.upstream.url)
    path = edge.worker._settings.edge_config
    before = edge.worker._router.generation
    path.write_text("version: 2\n")
    edge.worker.reload()
    assert edge.worker._router.generation is before
    assert edge.worker.metrics.counters["reloads_refused"] == 1
    path.write_text(edge.routes.replace("id: api", "id: renamed"))
    edge.worker.reload()
    await edge.request("/x")
    (event,) = await edge.events(1)
    assert event.route_id == "renamed"


async def test_running_out_of_descriptors_pauses_accepting_and_goes_on(edge, monkeypatch):
    real = edge._acceptor._listener
    attempts = []

    class Exhausted:
        def accept(self):
            attempts.append(True)
            if len(attempts) <= 2:
                raise OSError(24, "Too many open files")
            return real.accept()

        def fileno(self):
            return real.fileno()

        def close(self):
            real.close()

    monkeypatch.setattr(edge._acceptor, "_listener", Exhausted())
    assert (await edge.request("/x")).status == 200
    assert len(attempts) < 10


async def test_defect_of_the_edge_is_500_and_closes_the_connection(edge, monkeypatch):
    monkeypatch.setattr(edge.worker._router.generation.pools["demo"], "pick", lambda: 1 / 0)
    got = await edge.request("/x")
    assert (got.status, json.loads(got.body)["type"]) == (500, "/problems/internal")
    assert "division" not in got.body.decode()


async def test_sampled_request_makes_spans_and_others_none(edge, monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # The global provider can be set once in a process, and other tests have theirs.
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    parent = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"
    await edge.request("/x", headers=f"traceparent: 00-{parent}-00\r\n")
    assert exporter.get_finished_spans() == ()
    await edge.request("/x", headers=f"traceparent: 00-{parent}-01\r\n")
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert set(spans) == {"edge.request", "edge.decide", "edge.upstream"}
    request = spans["edge.request"]
    assert f"{request.context.trace_id:032x}-{request.parent.span_id:016x}" == parent
    upstream = spans["edge.upstream"]
    assert upstream.parent.span_id == request.context.span_id
    assert f"-{upstream.context.span_id:016x}-01".encode() in edge.upstream.heads[1]
    decision = edge.backend.limiter.decisions[1]
    assert f"-{spans['edge.decide'].context.span_id:016x}-01" in decision.traceparent
