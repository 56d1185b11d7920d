"""Tokens that are looked up: what cannot be one is known without a look-up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.rpc.opaque_tokens import RANDOM_BYTES, SERVICE_ACCOUNT_PREFIX, hint, is_well_formed, mint

RANDOMNESS = st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES)


@given(RANDOMNESS)
def test_what_is_minted_is_well_formed_for_its_prefix_alone(randomness: bytes) -> None:
    token = mint(SERVICE_ACCOUNT_PREFIX, randomness)
    assert is_well_formed(token, SERVICE_ACCOUNT_PREFIX)
    assert not is_well_formed(token, "tw_rt_")
    assert not is_well_formed("tw_rt_" + token.removeprefix(SERVICE_ACCOUNT_PREFIX), "tw_rt_")


@given(RANDOMNESS, st.data())
def test_every_change_of_one_character_is_refused(randomness: bytes, data: st.DataObject) -> None:
    token = mint(SERVICE_ACCOUNT_PREFIX, randomness)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters().filter(lambda character: character != token[at]))
    assert not is_well_formed(token[:at] + other + token[at + 1 :], SERVICE_ACCOUNT_PREFIX)


@given(RANDOMNESS, st.text(min_size=1, max_size=5))
def test_nothing_may_stand_before_or_behind_it(randomness: bytes, more: str) -> None:
    token = mint(SERVICE_ACCOUNT_PREFIX, randomness)
    assert not is_well_formed(token + more, SERVICE_ACCOUNT_PREFIX)
    assert not is_well_formed(more + token, SERVICE_ACCOUNT_PREFIX)
    assert not is_well_formed(token[:-1], SERVICE_ACCOUNT_PREFIX)
    assert not is_well_formed(token + "\n", SERVICE_ACCOUNT_PREFIX)


@given(st.text())
def test_no_text_makes_it_fail(text: str) -> None:
    assert not is_well_formed(text, SERVICE_ACCOUNT_PREFIX)
    assert not is_well_formed(SERVICE_ACCOUNT_PREFIX + text, SERVICE_ACCOUNT_PREFIX)


@given(RANDOMNESS)
def test_a_hint_shows_eight_of_sixty_four_digits(randomness: bytes) -> None:
    token = mint(SERVICE_ACCOUNT_PREFIX, randomness)
    assert hint(token, SERVICE_ACCOUNT_PREFIX) == f"{token[:10]}…{token[-4:]}"


def test_other_amounts_of_randomness_are_refused() -> None:
    with pytest.raises(ValueError, match="28"):
        mint(SERVICE_ACCOUNT_PREFIX, b"short")
