"""The fields of an API key, read from whatever request carries them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, Protocol

from google.protobuf import timestamp_pb2
from tollway.auth.v1 import auth_service_pb2 as pb

from contract import key_scopes
from mesh.rpc.errors import Violations
from services.auth.model import KeyMode
from services.auth.rpc.fields import SUBJECT_LENGTH_MAX, check_text, read_time

NAME_LENGTH_MAX: Final = 100
SCOPES_MAX: Final = 50
SCOPE_LENGTH_MAX: Final = 100
ALLOWED_IPS_MAX: Final = 100
MODE_OF: Final = {
    pb.KEY_MODE_UNSPECIFIED: KeyMode.LIVE,
    pb.KEY_MODE_LIVE: KeyMode.LIVE,
    pb.KEY_MODE_TEST: KeyMode.TEST,
}


class KeyFields(Protocol):
    """What the messages that describe a key have in common."""

    @property
    def name(self) -> str:
        """Return the display name."""
        ...

    @property
    def external_subject(self) -> str:
        """Return the end user that it stands for."""
        ...

    @property
    def scopes(self) -> Sequence[str]:
        """Return the scopes."""
        ...

    @property
    def allowed_ips(self) -> Sequence[str]:
        """Return the networks."""
        ...

    @property
    def expire_time(self) -> timestamp_pb2.Timestamp:
        """Return the end."""
        ...


def check_name(violations: Violations, fields: KeyFields, path: str = "") -> None:
    """Note a display name that is empty or too long."""
    check_text(violations, f"{path}name", fields.name, length_min=1, length_max=NAME_LENGTH_MAX)


def check_subject(violations: Violations, fields: KeyFields, path: str = "") -> None:
    """Note a subject that is too long."""
    text = fields.external_subject
    check_text(violations, f"{path}external_subject", text, length_min=0, length_max=SUBJECT_LENGTH_MAX)


def read_scopes(violations: Violations, fields: KeyFields, path: str = "") -> tuple[str, ...]:
    """Return the scopes, each once; wrong ones are noted."""
    violations.check(len(fields.scopes) <= SCOPES_MAX, f"{path}scopes", f"must be at most {SCOPES_MAX}")
    for index, scope in enumerate(fields.scopes[:SCOPES_MAX]):
        violations.check(
            0 < len(scope) <= SCOPE_LENGTH_MAX and scope.isascii() and scope.isprintable() and " " not in scope,
            f"{path}scopes[{index}]",
            f"must have 1 to {SCOPE_LENGTH_MAX} visible ASCII characters",
        )
        is_known = scope in key_scopes.RESERVED or not key_scopes.is_reserved(scope)
        violations.check(is_known, f"{path}scopes[{index}]", f"must not begin with {key_scopes.KEPT_PREFIX}")
    return tuple(dict.fromkeys(fields.scopes))


def read_networks(violations: Violations, fields: KeyFields, path: str = "") -> tuple[str, ...]:
    """Return the networks that may use a key; wrong ones are noted."""
    given: Iterable[str] = fields.allowed_ips[:ALLOWED_IPS_MAX]
    right = len(fields.allowed_ips) <= ALLOWED_IPS_MAX
    violations.check(right, f"{path}allowed_ips", f"must be at most {ALLOWED_IPS_MAX}")
    read = []
    for index, text in enumerate(given):
        try:
            read.append(str(ipaddress.ip_network(text, strict=True)))
        except ValueError:
            violations.add(f"{path}allowed_ips[{index}]", "must be an address or a network, for example 192.0.2.0/24")
    return tuple(read)


def read_expiry(
    violations: Violations, timestamp: timestamp_pb2.Timestamp | None, now: datetime, path: str = ""
) -> datetime | None:
    """Return when a key ends, or None where it never does; an end that is not ahead is noted."""
    if timestamp is None:
        return None
    expire_time = read_time(violations, f"{path}expire_time", timestamp)
    violations.check(expire_time is None or expire_time > now, f"{path}expire_time", "must be in the future")
    return expire_time
