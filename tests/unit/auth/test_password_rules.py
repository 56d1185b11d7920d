"""What a password may be: its length in one form of Unicode, and not what is guessed first."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.rpc.errors import InvalidFields, Violations
from services.auth import password_rules as rules

KNOWN = ("ada.lovelace@example.com", "Ada Lovelace", "Analytical Engines")


def wrong(password: str, known: tuple[str, ...] = KNOWN) -> bool:
    violations = Violations()
    rules.read_new_password(violations, "password", password, known=known)
    try:
        violations.raise_if_any()
    except InvalidFields:
        return True
    return False


@given(st.text())
def test_the_length_alone_decides_where_nothing_is_known_of_a_password(password: str) -> None:
    length = len(unicodedata.normalize("NFKC", password))
    if not rules.is_guessed_first(rules.normalized(password), KNOWN):
        assert wrong(password) == (not 8 <= length <= 200)


@given(st.text(min_size=1, max_size=300))
def test_what_may_be_set_can_be_typed_again_in_any_form(password: str) -> None:
    if wrong(password):
        return
    violations = Violations()
    read = {
        rules.read_password(violations, "password", unicodedata.normalize(form, password)) for form in ("NFC", "NFD")
    }
    violations.raise_if_any()
    assert read == {rules.normalized(password)}


@pytest.mark.parametrize("length", [1, 7, 8, 200, 201, 1_000, 1_001])
def test_nothing_is_cut_off_and_no_kinds_are_demanded(length: int) -> None:
    for character in ("\u00e9", "\U0001f4a3", " "):
        assert wrong(character * length) == (not 8 <= length <= 200)
    violations = Violations()
    kept = rules.read_new_password(violations, "password", "ab" * 100)
    assert kept == "ab" * 100


@pytest.mark.parametrize(
    "password",
    [
        "password", "PASSWORD", "\uff50assword", "12345678", "qwertyuiop", "iloveyou", "trustno1",
        "tollway1", "TollwayTollway", "tollway123", "ada.lovelace", "Ada.Lovelace@example.com", "ada lovelace",
        "ada.lovelace123", "analytical engines",
    ],
)  # fmt: skip
def test_what_is_guessed_first_is_refused(password: str) -> None:
    assert wrong(password)


def test_the_list_is_the_whole_list() -> None:
    assert len(rules._COMMON) > 10_000


@pytest.mark.parametrize("password", ["correct horse battery staple", "aaaaaaab", "        9", "ada.lovelac"])
def test_anything_else_may_be_a_password(password: str) -> None:
    assert not wrong(password)
