"""Whatever a request holds, no RPC answers INTERNAL or UNKNOWN.

All services run as they do in production, on real databases; the requests come from the descriptors.

The requests are drawn by Hypothesis, always the same ones, and sent side by side. RPCs that are written later are
covered without a line here.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import grpc.aio
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import strategies as st
from tollway.options.v1 import access_pb2

from contract.services import SERVICES
from mesh.rpc.access import read_rule
from tests.support.accounts import seed_key, seed_organization
from tests.support.all_services import AllServices, all_services
from tests.support.examples import drawn
from tests.support.processes import process_metadata
from tests.support.valid_requests import valid

EXAMPLES_COUNT = 30
SIDE_BY_SIDE = 8
# Hashing a password takes a while, and that is its point.
EXAMPLES_WITH_A_PASSWORD_COUNT = 5
PASSWORDS = ("password", "new_password")
DEPTH_MAX = 4
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
def messages(draw: Any, descriptor: Any, depth: int = 0, tenant_field: str = "", only: str = "") -> Any:
    """A message with any of its fields, or one of them alone, set to anything that fits on the wire."""
    message = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if depth > DEPTH_MAX or only not in {"", field.name} or not (only or draw(st.integers(0, 3))):
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


@st.composite
def almost_valid(draw: Any, descriptor: Any, known: dict[str, str]) -> Any:
    """A request that its handler takes, but for one field that holds anything: it gets further than one of chance."""
    message = valid(descriptor, known)
    if descriptor.fields:
        field = draw(st.sampled_from(list(descriptor.fields)))
        message.ClearField(field.name)
        message.MergeFrom(draw(messages(descriptor, only=field.name)))
    return message


def callers(services: AllServices, name: str, method: Any, owner_id: uuid.UUID) -> list[list[tuple[str, str]]]:
    """One set of credentials for each kind of caller that the RPC lets in."""
    rule = read_rule(method)
    found: list[list[tuple[str, str]]] = [process_metadata(process, name) for process in sorted(rule.processes)[:1]]
    if access_pb2.CALLER_PERSON in rule.callers:
        found.append(services.person(owner_id, uuid.UUID(KNOWN), "owner", "admin"))
    return found or [[]]


async def test_no_request_makes_a_service_stumble(database: Any, redis_url: str) -> None:
    async with all_services(database, redis_url) as services:
        await send_everything(services, database)


async def send_everything(services: AllServices, database: Any) -> None:
    dsn = database.dsn("auth_system")
    owner = await seed_organization(dsn, organization_id=uuid.UUID(KNOWN))
    api_key_id, _ = await seed_key(dsn, owner.organization_id, owner.owner_id)
    known = {"organization_id": KNOWN, "api_key_id": str(api_key_id), "person_id": str(owner.owner_id)}
    stumbled, seen, turn = [], {}, asyncio.Semaphore(SIDE_BY_SIDE)

    async def send(name: str, method: Any, raw: bytes, shown: str, metadata: Any) -> None:
        path = f"/{method.containing_service.full_name}/{method.name}"
        async with turn:
            answer = await services.call(name, method, raw, metadata)
        code = answer.code
        seen.setdefault(method.name, set()).add(code)
        if code in NEVER:
            stumbled.append((path, code.name, answer.details, shown))

    async with asyncio.TaskGroup() as calls:
        for name, service in SERVICES.items():
            for method in service.descriptor.methods:
                has_password = any(name in method.input_type.fields_by_name for name in PASSWORDS)
                count = EXAMPLES_WITH_A_PASSWORD_COUNT if has_password else EXAMPLES_COUNT
                tenant_field = read_rule(method).tenant_field
                wanted = drawn(messages(method.input_type, tenant_field=tenant_field), count)
                wanted += drawn(almost_valid(method.input_type, known), count)
                garbage = [*drawn(st.binary(min_size=1, max_size=40), 5), b"\x0a\x03\xed\xa0\x80", b"\xff" * 20]
                for metadata in callers(services, name, method, owner.owner_id):
                    for message in wanted:
                        calls.create_task(send(name, method, message.SerializeToString(), str(message), metadata))
                    for raw in garbage:
                        calls.create_task(send(name, method, raw, repr(raw), metadata))
    by_path = {
        path: (code, services.crashes.get(path, details), shown[:200]) for path, code, details, shown in stumbled[::-1]
    }
    assert not stumbled, f"{len(stumbled)} requests, one of each RPC:\n" + "\n".join(map(str, sorted(by_path.items())))
    # The requests reach the handlers: not everything is refused at the door.
    assert sum(grpc.StatusCode.OK in codes for codes in seen.values()) > len(seen) / 2, seen
