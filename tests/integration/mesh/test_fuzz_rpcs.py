"""Whatever a request holds, no RPC answers INTERNAL or UNKNOWN.

All services run as they do in production, on real databases; the requests come from the descriptors.

The requests are drawn by Hypothesis, always the same ones, and sent side by side. RPCs that are written later are
covered without a line here.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import uuid
from typing import Any

import grpc.aio
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tollway.options.v1 import access_pb2

from cli.stack.ports import free_ports
from contract.services import SERVICES
from mesh.clock import SystemClock
from mesh.ids import RandomIds
from mesh.rpc.access import read_rule
from mesh.rpc.errors import from_grpc
from mesh.rpc.tokens import SessionSigner
from mesh.service.process import ProcessContext
from mesh.service.runner import serve
from tests.support.accounts import seed_key, seed_organization
from tests.support.processes import process_fields, process_metadata

EXAMPLES_COUNT = 30
SIDE_BY_SIDE = 8
# Hashing a password takes a while, and that is its point.
SLOW = {"CreateSession": 5}
CALL_SECONDS_MAX = 60
START_SECONDS_MAX = 120
# Not a service's word: grpc.aio makes this INTERNAL up where a refusal overtakes a message that is being sent.
MADE_UP = "Internal error from Core"
DEPTH_MAX = 4
SIGNING_SEED = b"s" * 32
NEVER = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
KNOWN = str(uuid.UUID(int=0x01A0_0000_0000_7000_8000_0000_0000_0001))
TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            "a",
            "\0",
            "a\0b",
            "x" * 9_000,
            "x" * 200,
            "é",
            "\U0001f4a3" * 40,
            "\u202e",
            "%s%n",
            "{}",
            "';--",
            "-1",
            "1e999",
        ]
    ),
    st.sampled_from(
        [
            "9" * 5_000,
            "NaN",
            "0.1",
            KNOWN,
            KNOWN.upper(),
            "urn:uuid:" + KNOWN,
            "0" * 32,
            "a@b.example",
            "starter",
            "free",
        ]
    ),
    st.text(max_size=40),
)
INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


BINARIES = st.sampled_from([0, 1, 16, 32, 300]).flatmap(lambda size: st.binary(min_size=size, max_size=size))
OTHERS = {
    FieldDescriptor.TYPE_BYTES: st.one_of(BINARIES, st.just(uuid.UUID(KNOWN).bytes)),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_DOUBLE: st.floats(),
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32),
}


def integers(low: int, high: int) -> Any:
    edges = [value for value in (low, -1, 0, 1, 2, 50, 1_000, high // 1_000, high) if low <= value <= high]
    return st.one_of(st.sampled_from(edges), st.integers(low, high))


def values(field: FieldDescriptor, depth: int) -> Any:
    """Values for one element of a field."""
    if field.message_type is not None:
        return messages(field.message_type, depth + 1)
    if field.enum_type is not None:
        known = sorted(field.enum_type.values_by_number)
        return st.one_of(st.sampled_from(known), st.sampled_from([-1, 99, 2**31 - 1]))
    if field.type == FieldDescriptor.TYPE_STRING:
        return st.one_of(st.just(KNOWN), TEXTS) if field.name.endswith("_id") else TEXTS
    if field.cpp_type in INTEGERS:
        return integers(*INTEGERS[field.cpp_type])
    return OTHERS[field.type]


@st.composite
def messages(draw: Any, descriptor: Any, depth: int = 0, tenant_field: str = "") -> Any:
    """A message with any of its fields set to anything that fits on the wire."""
    message = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if depth > DEPTH_MAX or not draw(st.integers(0, 3)):
            continue
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            target = getattr(message, field.name)
            for _ in range(draw(st.integers(0, 2))):
                key, value = (draw(values(entry.fields_by_name[name], depth)) for name in ("key", "value"))
                if entry.fields_by_name["value"].message_type is not None:
                    target[key].CopyFrom(value)
                else:
                    target[key] = value
        elif field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(values(field, depth), max_size=3)))
        elif entry is not None:
            getattr(message, field.name).CopyFrom(draw(values(field, depth)))
        else:
            setattr(message, field.name, draw(values(field, depth)))
    if tenant_field and draw(st.integers(0, 9)):
        setattr(message, tenant_field, KNOWN)
    return message


def drawn(strategy: Any, count: int) -> list[Any]:
    """The first examples of a strategy, the same in every run."""
    found: list[Any] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found


def settings_of(
    name: str, settings_class: Any, *, database: Any, redis_url: str, ports: dict[str, int], metrics_port: int
) -> Any:
    offered = {
        **process_fields(name),
        f"{name}_listen": f"127.0.0.1:{ports[name]}",
        f"{name}_metrics_listen": f"127.0.0.1:{metrics_port}",
        f"{name}_dsn": database.dsn(name),
        f"{name}_system_dsn": database.dsn(f"{name}_system"),
        f"{name}_data_keys": f"1:{'01' * 32}",
        "key_peppers": f"1:{'02' * 32}",
        "signing_key": SIGNING_SEED.hex(),
        "page_token_key": "03" * 32,
        "redis_url": redis_url,
        "redis_timeout_ms": 10_000,
        "smtp_url": "smtp://127.0.0.1:1",
        "mail_from": "Tollway <no-reply@tollway.example>",
        **{f"{each}_address": f"127.0.0.1:{port}" for each, port in ports.items()},
    }
    return settings_class(**{field: value for field, value in offered.items() if field in settings_class.model_fields})


@pytest.fixture
async def channels(database: Any, redis_url: str) -> Any:
    """Channels to all services, each as it is run, in this process."""
    chosen = free_ports(2 * len(SERVICES))
    ports = dict(zip(SERVICES, chosen, strict=False))
    stopping = asyncio.Event()

    async def run_all() -> None:
        async with asyncio.TaskGroup() as tasks:
            for name, metrics_port in zip(SERVICES, chosen[len(SERVICES) :], strict=True):
                spec = importlib.import_module(f"services.{name}.__main__").SPEC
                configured = settings_of(
                    name, spec.settings, database=database, redis_url=redis_url, ports=ports, metrics_port=metrics_port
                )
                context = ProcessContext(stopping=stopping, tasks=tasks)
                tasks.create_task(serve(spec, configured, frozenset({"api"}), context))

    running = asyncio.create_task(run_all())
    opened = {name: grpc.aio.insecure_channel(f"127.0.0.1:{port}") for name, port in ports.items()}
    ready = asyncio.gather(*(channel.channel_ready() for channel in opened.values()))
    await asyncio.wait({running, ready}, timeout=START_SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED)
    assert ready.done(), running
    yield opened
    for channel in opened.values():
        await channel.close()
    stopping.set()
    await asyncio.wait_for(running, CALL_SECONDS_MAX)


def callers(name: str, method: Any, owner_id: uuid.UUID) -> list[list[tuple[str, str]]]:
    """One set of credentials for each kind of caller that the RPC lets in."""
    rule = read_rule(method)
    found: list[list[tuple[str, str]]] = [process_metadata(process, name) for process in sorted(rule.processes)[:1]]
    if access_pb2.CALLER_PERSON in rule.callers:
        signer = SessionSigner(seed=SIGNING_SEED, clock=SystemClock(), ids=RandomIds())
        token, _ = signer.issue(
            person_id=owner_id, organization_id=uuid.UUID(KNOWN), role="owner", platform_roles=["admin"]
        )
        found.append([("authorization", f"Bearer {token}")])
    return found or [[]]


async def outcome(channel: Any, path: str, method: Any, raw: bytes, metadata: Any) -> tuple[grpc.StatusCode, str]:
    """Calls an RPC with bytes and returns code and reason."""
    streams = (method.client_streaming, method.server_streaming)
    kinds = {
        (False, False): "unary_unary",
        (False, True): "unary_stream",
        (True, False): "stream_unary",
        (True, True): "stream_stream",
    }
    call = getattr(channel, kinds[streams])(path)
    request = iter([raw, raw]) if method.client_streaming else raw
    try:
        async with asyncio.timeout(CALL_SECONDS_MAX):
            if not method.server_streaming:
                await call(request, metadata=metadata)
            else:
                answers = call(request, metadata=metadata)
                # One answer is enough: some streams never end.
                with contextlib.suppress(StopAsyncIteration):
                    await anext(aiter(answers))
                answers.cancel()
    except grpc.aio.AioRpcError as error:
        if error.details() == MADE_UP:
            return await outcome(channel, path, method, raw, metadata)
        return error.code(), from_grpc(error).reason
    return grpc.StatusCode.OK, ""


async def test_no_request_makes_a_service_stumble(channels: Any, database: Any) -> None:
    dsn = database.dsn("auth_system")
    owner = await seed_organization(dsn, organization_id=uuid.UUID(KNOWN))
    await seed_key(dsn, owner.organization_id, owner.owner_id)
    stumbled, seen, turn = [], {}, asyncio.Semaphore(SIDE_BY_SIDE)

    async def send(name: str, method: Any, raw: bytes, shown: str, metadata: Any) -> None:
        path = f"/{method.containing_service.full_name}/{method.name}"
        async with turn:
            code, reason = await outcome(channels[name], path, method, raw, metadata)
        seen.setdefault(method.name, set()).add(code)
        if code in NEVER:
            stumbled.append((path, code.name, reason, shown))

    async with asyncio.TaskGroup() as calls:
        for name, service in SERVICES.items():
            for method in service.descriptor.methods:
                count = SLOW.get(method.name, EXAMPLES_COUNT)
                tenant_field = read_rule(method).tenant_field
                wanted = drawn(messages(method.input_type, tenant_field=tenant_field), count)
                garbage = [*drawn(st.binary(min_size=1, max_size=40), 5), b"\x0a\x03\xed\xa0\x80", b"\xff" * 20]
                for metadata in callers(name, method, owner.owner_id):
                    for message in wanted:
                        calls.create_task(send(name, method, message.SerializeToString(), str(message), metadata))
                    for raw in garbage:
                        calls.create_task(send(name, method, raw, repr(raw), metadata))
    assert not stumbled, f"{len(stumbled)} requests:\n" + "\n".join(
        f"{path} {code} {reason}: {shown[:300]}" for path, code, reason, shown in stumbled[:10]
    )
    # The requests reach the handlers: not everything is refused at the door.
    assert sum(grpc.StatusCode.OK in codes for codes in seen.values()) > len(seen) / 2, seen
