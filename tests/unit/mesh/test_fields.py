"""What no field of any request may hold."""

from __future__ import annotations

import pytest
from google.protobuf import struct_pb2, timestamp_pb2
from tollway.auth.v1 import auth_service_pb2 as auth
from tollway.metering.v1 import metering_service_pb2 as metering
from tollway.notification.v1 import notification_service_pb2 as notification

from mesh.rpc.errors import InvalidFields
from mesh.rpc.fields import SECONDS_MAX, SECONDS_MIN, STRING_LENGTH_MAX, VIOLATIONS_MAX, FieldChecks

CHECKS = FieldChecks()


def wrong(message):
    try:
        CHECKS.check(message)
    except InvalidFields as refused:
        return {violation.field: violation.description for violation in refused.violations}
    return {}


def entry(**fields):
    return auth.AppendAuditEntriesRequest(entries=[auth.AuditEntry(), auth.AuditEntry(**fields)])


def struct(value):
    details = struct_pb2.Struct()
    details.update(value)
    return details


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (auth.CreateApiKeyRequest(name="a\0b"), "name"),
        (auth.CreateApiKeyRequest(name="x" * (STRING_LENGTH_MAX + 1)), "name"),
        (auth.CreateApiKeyRequest(scopes=["fine", "\0"]), "scopes[1]"),
        (notification.SendEmailRequest(parameters={"a": "\0"}), "parameters['a']"),
        (notification.SendEmailRequest(parameters={"\0": "a"}), "parameters['\\x00']"),
        (entry(action="\0"), "entries[1].action"),
        (entry(create_time=timestamp_pb2.Timestamp(seconds=SECONDS_MAX + 1)), "entries[1].create_time"),
        (entry(create_time=timestamp_pb2.Timestamp(seconds=SECONDS_MIN - 1)), "entries[1].create_time"),
        (entry(create_time=timestamp_pb2.Timestamp(nanos=10**9)), "entries[1].create_time"),
        (entry(create_time=timestamp_pb2.Timestamp(nanos=-1)), "entries[1].create_time"),
        (
            entry(details=struct({"a": {"b": ["\0"]}})),
            "entries[1].details.fields['a'].struct_value.fields['b'].list_value.values[0].string_value",
        ),
        (entry(details=struct({"a": float("nan")})), "entries[1].details.fields['a'].number_value"),
        (entry(details=struct({"a": float("inf")})), "entries[1].details.fields['a'].number_value"),
        (metering.QueryUsageRequest(granularity=99), "granularity"),
    ],
)
def test_what_no_field_may_hold_is_named_with_its_path(message, field):
    assert list(wrong(message)) == [field]


def test_every_wrong_field_is_told_at_once_up_to_a_bound():
    assert set(wrong(auth.CreateApiKeyRequest(name="\0", scopes=["\0"]))) == {"name", "scopes[0]"}
    assert len(wrong(auth.CreateApiKeyRequest(scopes=["\0"] * 100))) == VIOLATIONS_MAX


def test_what_is_fine_passes():
    last = timestamp_pb2.Timestamp(seconds=SECONDS_MAX, nanos=999_999_999)
    assert wrong(entry(create_time=last, details=struct({"a": [1, {"b": None}, "ü💣"]}))) == {}
    assert wrong(auth.CreateApiKeyRequest(name="x" * STRING_LENGTH_MAX, scopes=["a"])) == {}
    assert wrong(auth.CreateApiKeyRequest()) == {}
