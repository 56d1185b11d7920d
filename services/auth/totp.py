"""Codes of authenticator apps: TOTP (RFC 6238) with SHA-1, 6 digits and steps of 30 s, which is what all apps take.

A code is good in its step and one step before and after it, for clocks that differ (RFC 6238 section 5.2), and once:
whoever accepts a code keeps its step, and neither it nor an older one is accepted again. A secret has 160 bits (RFC
4226 section 4). Recovery codes stand in for the app where it is lost: 80 random bits each, of which an HMAC under a
pepper is stored, bound to the person.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

SECRET_BYTES: Final = 20
STEP_SECONDS: Final = 30
DIGITS: Final = 6
DRIFT_STEPS: Final = 1
ISSUER: Final = "Tollway"
RECOVERY_CODES: Final = 10
RECOVERY_BYTES: Final = 10
RECOVERY_LENGTH: Final = 16
CODE_LENGTH_MAX: Final = 40
"""As it was typed, with blanks or dashes."""
_GROUP: Final = 4


def step_of(instant: datetime) -> int:
    """Return the step of an instant: whole periods of 30 s since 1970."""
    return int(instant.timestamp()) // STEP_SECONDS


def code_of(secret: bytes, step: int) -> str:
    """Return the code of a step, six digits."""
    return _totp(secret).generate(step * STEP_SECONDS).decode()


def find_step(secret: bytes, code: str, instant: datetime, newest_step: int | None) -> int | None:
    """Return the step whose code this is, or None where it is none that may be accepted.

    Args:
        secret: As the app has it.
        code: Six digits.
        instant: Now.
        newest_step: The step of the newest code that was accepted.
    """
    found = None
    now = step_of(instant)
    for step in range(now - DRIFT_STEPS, now + DRIFT_STEPS + 1):
        # All are compared, so that the time does not tell which one it is.
        fits = step >= 0 and hmac.compare_digest(code_of(secret, step), code)
        if fits and (newest_step is None or step > newest_step):
            found = step
    return found


def base32(secret: bytes) -> str:
    """Return a secret as people type it into an app: base32 without padding."""
    return base64.b32encode(secret).decode().rstrip("=")


def otpauth_uri(secret: bytes, email: str) -> str:
    """Return a secret as apps read it from a QR code (Google Authenticator's key URI format)."""
    return _totp(secret).get_provisioning_uri(email, ISSUER)


def _totp(secret: bytes) -> TOTP:
    return TOTP(secret, DIGITS, SHA1(), STEP_SECONDS)  # noqa: S303 what RFC 6238 says and apps do


def read_code(typed: str) -> str:
    """Return a code without what people put between its characters."""
    return "".join(typed.split()).replace("-", "").upper()


def is_app_code(code: str) -> bool:
    """Tell a code of an app from a recovery code."""
    return len(code) == DIGITS and code.isascii() and code.isdigit()


class RecoveryCodes:
    """Makes recovery codes and finds out what is stored for them.

    Args:
        peppers: Peppers by version; new digests are made with the highest.
        random_bytes: A cryptographic source of randomness.
    """

    def __init__(self, *, peppers: Mapping[int, bytes], random_bytes: Callable[[int], bytes]) -> None:
        self._peppers = dict(peppers)
        self._random_bytes = random_bytes

    def mint(self, person_id: UUID) -> tuple[list[str], list[bytes]]:
        """Return ten codes, in groups of four characters, and what is stored for them."""
        codes = [base64.b32encode(self._random_bytes(RECOVERY_BYTES)).decode() for _ in range(RECOVERY_CODES)]
        newest = self._peppers[max(self._peppers)]
        shown = ["-".join(code[at : at + _GROUP] for at in range(0, RECOVERY_LENGTH, _GROUP)) for code in codes]
        return shown, [_digest(person_id, code, newest) for code in codes]

    def digests(self, person_id: UUID, code: str) -> list[bytes]:
        """Return what may be stored for a code; nothing for what is none, so that it costs no query."""
        if len(code) != RECOVERY_LENGTH or not code.isascii() or not code.isalnum():
            return []
        return [_digest(person_id, code, pepper) for pepper in self._peppers.values()]


def _digest(person_id: UUID, code: str, pepper: bytes) -> bytes:
    return hmac.new(pepper, f"recovery_code\n{person_id}\n{code}".encode(), hashlib.sha256).digest()
