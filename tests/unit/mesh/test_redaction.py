"""No credential in a log line, whoever wrote the line."""

from __future__ import annotations

import json
import logging
import time

import pytest
import structlog

from mesh.observability import configure_logging
from mesh.redaction import REDACTED, redacted

JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
KEY = "sk_live_" + "0a" * 32
ACCOUNT = "tw_sa_" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"Authorization: Bearer {JWT}", f"Authorization: {REDACTED}"),
        (f"x\\nBearer {JWT}", f"x\\nBearer {REDACTED}"),
        (f"invalid token {JWT}.", f"invalid token eyJ{REDACTED}"),
        (f"key {KEY} is", f"key sk_live_{REDACTED} is"),
        (f"tw_sa: {ACCOUNT}", f"tw_sa: tw_sa_{REDACTED}"),
        ("Basic dXNlcjpwYXNz", f"Basic {REDACTED}"),
        ("{'password': 'x y, z', 'a': 1}", f"{{'password': '{REDACTED}', 'a': 1}}"),
        ("email=a&password=hunter2&x=1", f"email=a&password={REDACTED}&x=1"),
        ("refresh_token=abc", f"refresh_token={REDACTED}"),
        (json.dumps({"secret": 'a"b, c'}), json.dumps({"secret": REDACTED})),
        (json.dumps(json.dumps({"password": "a b"})), json.dumps(json.dumps({"password": REDACTED}))),
        ("sk_live_1a2b…9f0e", "sk_live_1a2b…9f0e"),
        ("The e-mail address or the password is wrong.", "The e-mail address or the password is wrong."),
        ("more tokens than 1000", "more tokens than 1000"),
    ],
)
def test_what_looks_like_a_credential_is_replaced_and_the_rest_stays(text: str, clean: str) -> None:
    assert redacted(text) == clean


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_logger_writes_a_credential(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    configured = structlog.get_config()
    try:
        configure_logging("x", level="debug", form=form)
        try:
            int(f"bad header: b'Authorization: Bearer {JWT}'")
        except ValueError:
            structlog.get_logger().exception("failed", password="hunter2", nested={"secret": "hunter3"})
            logging.getLogger("library").exception("Error with %s", KEY)
        told = capsys.readouterr().out
    finally:
        structlog.configure(**configured)
        logging.basicConfig(force=True)
    assert "failed" in told
    assert "Error with sk_live_" in told
    for secret in (JWT, KEY, "hunter2", "hunter3"):
        assert secret not in told


@pytest.mark.parametrize("text", ["password: '", "basic ", "eyJ", "eyJa.", "tw_sa_", 'token=\\"', "secret=\\\\"])
def test_a_long_line_takes_linear_time(text: str) -> None:
    def seconds(times: int) -> float:
        line = text * times
        started = time.process_time()
        redacted(line)
        return time.process_time() - started

    short, long = min(seconds(5_000) for _ in range(5)), min(seconds(50_000) for _ in range(3))
    assert long < 40 * short + 0.05, "ten times the length; a quadratic pass takes a hundred times as long"
