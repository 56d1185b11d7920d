"""Codes of authenticator apps as RFC 6238 says, each good once, and recovery codes."""

from __future__ import annotations

import base64
import secrets
from datetime import UTC, datetime
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth import totp
from services.auth.totp import RecoveryCodes

PERSON, OTHER = UUID(int=1), UUID(int=2)
RFC_SECRET = b"12345678901234567890"

secrets_of_apps = st.binary(min_size=totp.SECRET_BYTES, max_size=totp.SECRET_BYTES)
steps = st.integers(min_value=10, max_value=2**33 // totp.STEP_SECONDS)


def at(step: int) -> datetime:
    return datetime.fromtimestamp(step * totp.STEP_SECONDS, UTC)


@pytest.mark.parametrize(
    ("seconds", "code"),
    [(59, "94287082"), (1111111109, "07081804"), (1111111111, "14050471"), (1234567890, "89005924"),
     (2000000000, "69279037"), (20000000000, "65353130")],
)  # fmt: skip
def test_the_codes_are_those_of_the_rfc(seconds: int, code: str) -> None:
    """RFC 6238, appendix B, SHA-1; six digits are the last six of eight."""
    step = totp.step_of(datetime.fromtimestamp(seconds, UTC))
    assert totp.code_of(RFC_SECRET, step) == code[-totp.DIGITS :]


@given(secrets_of_apps, steps, st.integers(-4, 4))
def test_a_code_is_good_one_step_early_or_late_and_no_more(secret: bytes, now: int, drift: int) -> None:
    code = totp.code_of(secret, now + drift)
    others = {totp.code_of(secret, step) for step in (now - 1, now, now + 1)}
    found = totp.find_step(secret, code, at(now), None)
    assert (found is not None) == (code in others)
    if found is not None:
        assert abs(found - now) <= totp.DRIFT_STEPS


@given(secrets_of_apps, steps, st.lists(st.integers(-1, 1), min_size=1, max_size=12))
def test_no_code_is_accepted_twice_in_whatever_order_they_come(secret: bytes, start: int, drifts: list[int]) -> None:
    newest, accepted = None, []
    for number, drift in enumerate(drifts):
        # The clock goes on by a step at every third try.
        now = start + number // 3
        found = totp.find_step(secret, totp.code_of(secret, now + drift), at(now), newest)
        if found is not None:
            accepted.append(found)
            newest = found
    assert accepted == sorted(set(accepted))


@given(st.text(max_size=8))
def test_a_code_of_an_app_has_six_digits_of_ascii(text: str) -> None:
    assert totp.is_app_code(text) == (len(text) == 6 and all(character in "0123456789" for character in text))
    assert not totp.is_app_code("\u0661\u0662\u0663\u0664\u0665\u0666")


def test_an_app_reads_the_secret_from_either_form() -> None:
    secret = secrets.token_bytes(totp.SECRET_BYTES)
    assert base64.b32decode(totp.base32(secret)) == secret
    uri = urlsplit(totp.otpauth_uri(secret, "ada+x@example.com"))
    fields = {key: values[0] for key, values in parse_qs(uri.query).items()}
    assert (uri.scheme, uri.netloc, unquote(uri.path)) == ("otpauth", "totp", "/Tollway:ada+x@example.com")
    assert fields == {
        "secret": totp.base32(secret), "issuer": "Tollway", "algorithm": "SHA1", "digits": "6", "period": "30"
    }  # fmt: skip


def test_recovery_codes_are_many_different_and_bound_to_their_person() -> None:
    recovery = RecoveryCodes(peppers={1: b"old", 2: b"new"}, random_bytes=secrets.token_bytes)
    codes, digests = recovery.mint(PERSON)
    assert len(set(codes)) == len(set(digests)) == totp.RECOVERY_CODES
    for code, digest in zip(codes, digests, strict=True):
        assert len(code) == 19
        assert len(digest) == 32
        for typed in (code, code.lower(), code.replace("-", " "), f"  {code.replace('-', '')} "):
            assert digest in recovery.digests(PERSON, totp.read_code(typed))
        assert digest not in recovery.digests(OTHER, totp.read_code(code))
    # A pepper that was replaced still finds what was made with it.
    older = RecoveryCodes(peppers={1: b"old"}, random_bytes=secrets.token_bytes)
    codes, digests = older.mint(PERSON)
    assert digests[0] in recovery.digests(PERSON, totp.read_code(codes[0]))


@given(st.text(max_size=40))
def test_what_is_no_recovery_code_costs_no_query(text: str) -> None:
    code = totp.read_code(text)
    found = RecoveryCodes(peppers={1: b"p"}, random_bytes=secrets.token_bytes).digests(PERSON, code)
    assert bool(found) == (len(code) == 16 and code.isascii() and code.isalnum())
