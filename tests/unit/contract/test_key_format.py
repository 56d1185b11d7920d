"""The laws of the key format, for any randomness and any mistake."""

import hashlib
import hmac
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tollway.auth.v1.auth_service_pb2 import KeyMode

from contract import key_format

MODES = st.sampled_from([KeyMode.KEY_MODE_LIVE, KeyMode.KEY_MODE_TEST])
RANDOMNESS = st.binary(min_size=28, max_size=28)
KEYS = st.builds(key_format.mint, MODES, RANDOMNESS)
PEPPERS = st.binary(min_size=32, max_size=32)


@given(MODES, RANDOMNESS)
def test_a_minted_key_parses_to_its_mode(mode, randomness):
    key = key_format.mint(mode, randomness)
    assert key_format.parse(key) == mode
    assert (len(key), key[8:64]) == (72, randomness.hex())


@given(KEYS, st.integers(0, 71), st.characters())
@example(key_format.mint(KeyMode.KEY_MODE_LIVE, bytes(28)), 71, "\u0660")
def test_every_change_of_a_single_character_is_refused(key, position, character):
    changed = key[:position] + character + key[position + 1 :]
    assert (key_format.parse(changed) is None) == (changed != key)


def test_every_single_digit_of_a_key_matters():
    key = key_format.mint(KeyMode.KEY_MODE_TEST, bytes(range(28)))
    for position in range(72):
        for character in string.printable:
            changed = key[:position] + character + key[position + 1 :]
            assert (key_format.parse(changed) is None) == (changed != key), changed


@given(KEYS, st.integers(0, 70))
def test_two_neighbours_that_are_swapped_are_noticed(key, position):
    swapped = key[:position] + key[position + 1] + key[position] + key[position + 2 :]
    assert (key_format.parse(swapped) is None) == (swapped != key)


@given(KEYS, st.integers(0, 72), st.text(min_size=1, max_size=3))
def test_nothing_can_be_put_into_a_key(key, position, text):
    assert key_format.parse(key[:position] + text + key[position:]) is None


@given(KEYS, st.integers(0, 71), st.integers(1, 72))
def test_nothing_can_be_taken_out_of_a_key(key, position, length):
    assert key_format.parse(key[:position] + key[position + length :]) is None


@given(KEYS)
def test_another_case_is_another_key(key):
    for changed in (key.upper(), key.title(), key.swapcase(), key[:8] + key[8:].upper()):
        assert (key_format.parse(changed) is None) == (changed != key)


@given(KEYS)
def test_look_alikes_of_other_alphabets_are_refused(key):
    fullwidth = "".join(chr(ord(character) + 0xFEE0) for character in key)
    cyrillic = key.replace("a", "\u0430").replace("c", "\u0441").replace("e", "\u0435")
    for changed in (fullwidth, cyrillic, key + "\u0301", "\ufeff" + key, key + "\x00", key + "\n"):
        assert (key_format.parse(changed) is None) == (changed != key)


@given(KEYS)
def test_a_live_key_cannot_be_passed_off_as_a_test_key_nor_the_other_way_round(key):
    other = key.replace("sk_live_", "sk_test_") if key.startswith("sk_live_") else key.replace("sk_test_", "sk_live_")
    assert key_format.parse(other) is None


@given(st.text())
def test_text_that_is_no_key_is_refused(text):
    assert key_format.parse(text) is None


@pytest.mark.parametrize("text", ["", "sk_live_", "sk_live_" + "g" * 64, "SK_LIVE_" + "0" * 64, "sk_live_" + "0" * 65])
def test_other_shapes_are_refused(text):
    assert key_format.parse(text) is None


@pytest.mark.parametrize("length", [0, 27, 29])
def test_randomness_of_another_length_is_refused(length):
    with pytest.raises(ValueError, match=f"28 random bytes, not {length}"):
        key_format.mint(KeyMode.KEY_MODE_LIVE, bytes(length))


@given(KEYS)
def test_the_hint_shows_no_more_than_prefix_and_eight_digits(key):
    assert key_format.hint(key) == f"{key[:12]}…{key[-4:]}"


@given(KEYS, KEYS, PEPPERS, PEPPERS)
def test_digests_of_two_keys_or_under_two_peppers_differ(one, two, pepper, other):
    same = (one, pepper) == (two, other)
    assert (key_format.digest(one, pepper) == key_format.digest(two, other)) == same
    assert len(key_format.digest(one, pepper)) == 32


@given(st.binary(max_size=100), st.binary(max_size=100), PEPPERS)
def test_the_digest_of_an_imported_key_is_made_of_its_sha256_alone(one, two, pepper):
    first, second = (key_format.imported_digest(hashlib.sha256(key).digest(), pepper) for key in (one, two))
    assert (first == second) == (one == two)
    assert len(first) == 32


@given(KEYS, PEPPERS)
def test_no_digest_of_an_imported_key_is_one_of_a_key_of_ours(key, pepper):
    sha256 = hashlib.sha256(key.encode()).digest()
    imported = key_format.imported_digest(sha256, pepper)
    assert imported != key_format.digest(key, pepper)
    # Set apart by more than its length: the bare hash under the same pepper is another one too.
    assert imported != hmac.digest(pepper, sha256, hashlib.sha256)
