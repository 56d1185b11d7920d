"""Fields of requests: addresses, currencies, time zones, metadata."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.rpc.errors import InvalidFields, Violations
from services.auth.rpc import fields


def wrong(read, value):
    """Reads a value and returns what was read and which fields are wrong."""
    violations = Violations()
    read_value = read(violations, "it", value)
    try:
        violations.raise_if_any()
    except InvalidFields as error:
        return read_value, [each.field for each in error.violations]
    return read_value, []


@pytest.mark.parametrize(
    ("text", "email"),
    [
        ("ada@example.com", "ada@example.com"),
        (" Ada.Lovelace+x@EXAMPLE.co.uk\n", "ada.lovelace+x@example.co.uk"),
        ("o'neil@xn--bcher-kva.example", "o'neil@xn--bcher-kva.example"),
        ("a@b.c", "a@b.c"),
        (f"{'l' * 64}@example.com", f"{'l' * 64}@example.com"),
        (f"a@{'d' * 63}.com", f"a@{'d' * 63}.com"),
    ],
)
def test_an_address_is_read_in_one_spelling(text, email):
    assert wrong(fields.read_email, text) == (email, [])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ada",
        "@example.com",
        "ada@",
        "ada@example",
        "ada@example..com",
        "ada@.example.com",
        "ada@example.com.",
        "ada@-example.com",
        "ada@example-.com",
        ".ada@example.com",
        "ada.@example.com",
        "a..da@example.com",
        "ada@b@example.com",
        "ada lovelace@example.com",
        "ada@exa mple.com",
        '"ada"@example.com',
        "ada@[192.0.2.1]",
        "Ada <ada@example.com>",
        "ada@example.com, bob@example.com",
        "ada@example.com\nBcc: bob@example.com",
        "ada\x00@example.com",
        "ädä@example.com",
        "ada@bücher.example",
        f"{'l' * 65}@example.com",
        f"a@{'d' * 64}.com",
        f"a@{'d.' * 126}com",
    ],
)
def test_what_cannot_be_written_to_is_no_address(text):
    assert wrong(fields.read_email, text)[1] == ["it"]


@given(st.text(max_size=300))
def test_an_address_that_is_read_is_plain_ascii_on_one_line_and_read_again_the_same(text):
    email, found = wrong(fields.read_email, text)
    if not found:
        assert email.isascii()
        assert email.isprintable()
        assert wrong(fields.read_email, email) == (email, [])


@pytest.mark.parametrize(("code", "read"), [("", "USD"), ("EUR", "EUR"), ("JPY", "JPY"), ("KWD", "KWD")])
def test_a_currency_in_force_is_read(code, read):
    assert wrong(fields.read_currency_code, code) == (read, [])


@pytest.mark.parametrize("code", ["usd", "US", "USDX", "ABC", "DEM", "XXX", "XTS", "XAU", "U$D", " USD"])
def test_what_amounts_cannot_be_in_is_no_currency(code):
    assert wrong(fields.read_currency_code, code)[1] == ["it"]


@pytest.mark.parametrize(
    ("name", "read"), [("", "UTC"), ("Europe/Berlin", "Europe/Berlin"), ("Etc/GMT+3", "Etc/GMT+3")]
)
def test_a_time_zone_is_read(name, read):
    assert wrong(fields.read_time_zone, name) == (read, [])


@pytest.mark.parametrize(
    "name", ["europe/berlin", "Berlin", "../etc/passwd", "/etc/localtime", "posix/UTC", "+01:00", "\x00"]
)
def test_what_iana_does_not_name_is_no_time_zone(name):
    assert wrong(fields.read_time_zone, name)[1] == ["it"]


@pytest.mark.parametrize(
    ("metadata", "is_right"),
    [
        ({}, True),
        ({"k" * 40: "v" * 500}, True),
        ({"k": ""}, True),
        ({f"k{number}": "v" for number in range(50)}, True),
        ({f"k{number}": "v" for number in range(51)}, False),
        ({"": "v"}, False),
        ({"k" * 41: "v"}, False),
        ({"k": "v" * 501}, False),
        ({"k\n": "v"}, False),
        ({"k": "\x00"}, False),
    ],
)
def test_metadata_has_bounds(metadata, is_right):
    assert wrong(fields.read_metadata, metadata) == (metadata, [] if is_right else ["it"])
