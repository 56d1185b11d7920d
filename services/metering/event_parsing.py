"""Reads one serialised event and judges it. Pure: the same bytes and the same clock give the same answer.

Everything that PostgreSQL would refuse is refused here (NUL in text, integers beyond 63 bits), because one bad row in
a COPY fails the whole batch, and then a poison event would stop its partition for ever.

No event is poison for its times: `event_times.py` says what becomes of one whose clock was wrong.

Ids are UUIDv7, so an id tells when it was made, and an id cannot have arrived before it was made. So ids made after
the current week began need no look-up in the weeks before it (`ID_LOOKUP_MARGIN`). That holds for believed times only:
the id of a suspect event that claims to come from the future is staged as one that does not tell, and is looked up.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final

from asyncpg.pgproto.pgproto import UUID as FastUUID  # noqa: N811 - builds from bytes without a Python frame
from google.protobuf.message import DecodeError
from tollway.events.v1 import usage_event_pb2

from contract.outcomes import is_billable
from contract.wire import EVENT_TRACEPARENT
from services.metering import event_times
from services.metering.model import DeadReason, Poison, StagedEvent

ID_BYTES: Final = 16
HASH_BYTES: Final = 16
DEDUPE_WINDOW: Final = timedelta(days=35)
# Our clock may differ from the sender's by `CLOCK_SKEW_MAX`, and the database's, which files ids, from ours.
ID_LOOKUP_MARGIN: Final = 2 * event_times.CLOCK_SKEW_MAX
ROUTE_ID_LENGTH_MAX: Final = 200
METHOD_LENGTH_MAX: Final = 32
PATH_TEMPLATE_LENGTH_MAX: Final = 2_048
EXTERNAL_SUBJECT_LENGTH_MAX: Final = 256
MAP_ENTRIES_MAX: Final = 64
MAP_KEY_LENGTH_MAX: Final = 100
MAP_VALUE_LENGTH_MAX: Final = 2_048
INT64_MAX: Final = 2**63 - 1

_OUTCOMES: Final = frozenset(usage_event_pb2.Outcome.values()) - {usage_event_pb2.OUTCOME_UNSPECIFIED}
_DECIMAL: Final = re.compile(r"-?[0-9]{1,28}(\.[0-9]{1,28})?")
_NUL: Final = "\x00"


def hash_of(payload: bytes) -> bytes:
    """Return the hash that tells a repetition from a conflict (BLAKE2b, RFC 7693, 128 bits)."""
    return hashlib.blake2b(payload, digest_size=HASH_BYTES).digest()


def traceparent_of(payload: bytes) -> str:
    """Return the trace context of a sampled event; empty for all others, for the price of a search for its tag."""
    if EVENT_TRACEPARENT not in payload:
        return ""
    return usage_event_pb2.UsageEvent.FromString(payload).traceparent


def parse(payload: bytes, ordinal: int, now_us: int) -> StagedEvent | Poison | None:
    """Read an event.

    Args:
        payload: A serialised `UsageEvent`.
        ordinal: Stored with it, to find it again among its batch.
        now_us: Unix microseconds, what its times are compared with.

    Returns:
        The event as a row for COPY; `Poison` where it cannot be taken in; None where it names no organization, which
        is not an error but nothing that could be stored.
    """
    try:
        event = usage_event_pb2.UsageEvent.FromString(payload)
    except DecodeError as error:
        return Poison(reason=DeadReason.UNREADABLE, detail=str(error)[:200])
    organization_id = event.organization_id
    if not organization_id:
        return None
    # Every field is read once, and what is wrong is only worked out where something is: this runs per event.
    event_id, api_key_id, start_time_us = event.id, event.api_key_id, event.start_time_us
    status, outcome, cost_units, test_mode = event.status, event.outcome, event.cost_units, event.test_mode
    duration_us, upstream_latency_us = event.duration_us, event.upstream_latency_us
    request_bytes, response_bytes = event.request_bytes, event.response_bytes
    route_id, method, path_template = event.route_id, event.method, event.path_template
    external_subject, quantities, properties = event.external_subject, event.quantities, event.properties
    id_time_us = _id_time_us(event_id)
    if not (
        len(organization_id) == len(api_key_id) == len(event_id) == ID_BYTES
        and 100 <= status <= 599
        and outcome in _OUTCOMES
        and cost_units >= 1
        and request_bytes <= INT64_MAX
        and response_bytes <= INT64_MAX
        and len(route_id) <= ROUTE_ID_LENGTH_MAX
        and len(method) <= METHOD_LENGTH_MAX
        and len(path_template) <= PATH_TEMPLATE_LENGTH_MAX
        and len(external_subject) <= EXTERNAL_SUBJECT_LENGTH_MAX
        and _NUL not in route_id + method + path_template + external_subject
    ) or ((quantities or properties) and any(_map_violations(event))):
        return Poison(reason=DeadReason.INVALID, detail=", ".join(_violations(event)))
    time_suspect = claimed_start_time_us = None
    if not (duration_us >= 0 <= upstream_latency_us and event_times.are_believed(start_time_us, id_time_us, now_us)):
        settled = event_times.settle(
            start_time_us=start_time_us,
            id_time_us=id_time_us,
            duration_us=duration_us,
            upstream_latency_us=upstream_latency_us,
            now_us=now_us,
        )
        time_suspect, claimed_start_time_us, start_time_us = settled.reasons, start_time_us, settled.start_time_us
        duration_us, upstream_latency_us = settled.duration_us, settled.upstream_latency_us
        if id_time_us is not None and id_time_us > now_us:
            id_time_us = None
    return (
        FastUUID(organization_id),
        FastUUID(event_id),
        start_time_us,
        FastUUID(api_key_id),
        route_id,
        method,
        path_template,
        status,
        outcome,
        duration_us,
        upstream_latency_us,
        request_bytes,
        response_bytes,
        cost_units,
        test_mode,
        is_billable(outcome, status, test_mode=test_mode),
        external_subject,
        _json(quantities),
        _json(properties),
        time_suspect,
        claimed_start_time_us,
        hash_of(payload),
        id_time_us,
        ordinal,
    )


def _id_time_us(event_id: bytes) -> int | None:
    """Return when a UUIDv7 was made (RFC 9562 section 5.7); None for other versions, which do not tell."""
    is_version_7 = len(event_id) == ID_BYTES and event_id[6] >> 4 == 7
    return int.from_bytes(event_id[:6], "big") * 1_000 if is_version_7 else None


def _json(values: Mapping[str, str]) -> str | None:
    return json.dumps(dict(values), sort_keys=True) if values else None


def _violations(event: usage_event_pb2.UsageEvent) -> Iterator[str]:
    if len(event.organization_id) != ID_BYTES or len(event.api_key_id) != ID_BYTES:
        yield "organization_id, api_key_id: must be 16 bytes"
    if len(event.id) != ID_BYTES:
        yield "id: must be 16 bytes"
    if not 100 <= event.status <= 599:
        yield "status: must be an HTTP status"
    if event.outcome not in _OUTCOMES:
        yield "outcome: must be a known outcome"
    yield from _measure_violations(event)
    yield from _text_violations(event)
    if event.quantities or event.properties:
        yield from _map_violations(event)


def _measure_violations(event: usage_event_pb2.UsageEvent) -> Iterator[str]:
    if event.request_bytes > INT64_MAX or event.response_bytes > INT64_MAX:
        yield "request_bytes, response_bytes: must fit 63 bits"
    if event.cost_units < 1:
        yield "cost_units: must be at least 1"


def _text_violations(event: usage_event_pb2.UsageEvent) -> Iterator[str]:
    route_id, method, template, subject = event.route_id, event.method, event.path_template, event.external_subject
    if len(route_id) > ROUTE_ID_LENGTH_MAX:
        yield f"route_id: at most {ROUTE_ID_LENGTH_MAX} characters"
    if len(method) > METHOD_LENGTH_MAX:
        yield f"method: at most {METHOD_LENGTH_MAX} characters"
    if len(template) > PATH_TEMPLATE_LENGTH_MAX:
        yield f"path_template: at most {PATH_TEMPLATE_LENGTH_MAX} characters"
    if len(subject) > EXTERNAL_SUBJECT_LENGTH_MAX:
        yield f"external_subject: at most {EXTERNAL_SUBJECT_LENGTH_MAX} characters"
    if _NUL in route_id or _NUL in method or _NUL in template or _NUL in subject:
        yield "text: must not contain NUL"


def _map_violations(event: usage_event_pb2.UsageEvent) -> Iterator[str]:
    for name, values in (("quantities", event.quantities), ("properties", event.properties)):
        if len(values) > MAP_ENTRIES_MAX:
            yield f"{name}: at most {MAP_ENTRIES_MAX} entries"
        if any(len(key) > MAP_KEY_LENGTH_MAX or _NUL in key for key in values):
            yield f"{name}: names have at most {MAP_KEY_LENGTH_MAX} characters and no NUL"
        if any(len(value) > MAP_VALUE_LENGTH_MAX or _NUL in value for value in values.values()):
            yield f"{name}: values have at most {MAP_VALUE_LENGTH_MAX} characters and no NUL"
    if not all(_DECIMAL.fullmatch(value) for value in event.quantities.values()):
        yield "quantities: must be decimal numbers"
