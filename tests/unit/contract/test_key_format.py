import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollway.auth.v1.auth_service_pb2 import KeyMode

from contract import key_format

MODES = st.sampled_from([KeyMode.KEY_MODE_LIVE, KeyMode.KEY_MODE_TEST])
RANDOMNESS = st.binary(min_size=28, max_size=28)


@given(MODES, RANDOMNESS)
def test_a_minted_key_parses_to_its_mode(mode, randomness):
    assert key_format.parse(key_format.mint(mode, randomness)) == mode


@given(MODES, RANDOMNESS, st.integers(8, 71), st.sampled_from(string.hexdigits.lower()))
def test_one_wrong_digit_is_noticed(mode, randomness, position, digit):
    key = key_format.mint(mode, randomness)
    typo = key[:position] + digit + key[position + 1 :]
    assert (key_format.parse(typo) is None) == (typo != key)


@given(RANDOMNESS)
def test_a_live_key_cannot_be_passed_off_as_a_test_key(randomness):
    key = key_format.mint(KeyMode.KEY_MODE_LIVE, randomness)
    assert key_format.parse(key.replace("live", "test")) is None


@pytest.mark.parametrize("text", ["", "sk_live_", "sk_live_" + "g" * 64, "SK_LIVE_" + "0" * 64, "sk_live_" + "0" * 65])
def test_other_shapes_are_refused(text):
    assert key_format.parse(text) is None


def test_randomness_of_another_length_is_refused():
    with pytest.raises(ValueError, match="28 random bytes, not 27"):
        key_format.mint(KeyMode.KEY_MODE_LIVE, bytes(27))


def test_the_digest_depends_on_key_and_pepper_and_the_hint_hides_the_middle():
    one, two = (key_format.mint(KeyMode.KEY_MODE_LIVE, bytes([n]) * 28) for n in (1, 2))
    digests = {key_format.digest(key, pepper) for key in (one, two) for pepper in (b"a", b"b")}
    assert len(digests) == 4
    assert key_format.hint(one) == f"sk_live_0101…{one[-4:]}"
