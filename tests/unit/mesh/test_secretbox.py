"""Sealed secrets open with their key and in their place, and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.secretbox import SealBroken, Sealed, SecretBox

OLD, NEW = {1: b"o" * 32}, {1: b"o" * 32, 2: b"n" * 32}


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_what_is_sealed_opens_again(secret: bytes, context: bytes) -> None:
    box = SecretBox(NEW)
    sealed = box.seal(secret, context)
    assert box.open(sealed, context) == secret
    assert sealed.key_version == 2


def test_old_rows_open_after_a_rotation_and_are_told_by_their_version() -> None:
    sealed = SecretBox(OLD).seal(b"secret", b"row")
    assert sealed.key_version == 1
    assert SecretBox(NEW).open(sealed, b"row") == b"secret"


@given(st.integers(0, 33))
def test_a_changed_byte_is_noticed(position: int) -> None:
    box = SecretBox(OLD)
    sealed = box.seal(b"secret", b"row")
    changed = bytearray(sealed.ciphertext)
    changed[position] ^= 1
    with pytest.raises(SealBroken):
        box.open(Sealed(key_version=1, ciphertext=bytes(changed)), b"row")


@pytest.mark.parametrize(
    ("keys", "context"), [({1: b"x" * 32}, b"row"), ({3: b"o" * 32}, b"row"), (OLD, b"another row")]
)
def test_another_key_or_context_does_not_open(keys: dict[int, bytes], context: bytes) -> None:
    sealed = SecretBox(OLD).seal(b"secret", b"row")
    with pytest.raises(SealBroken):
        SecretBox(keys).open(sealed, context)


def test_the_same_secret_is_sealed_differently_each_time() -> None:
    box = SecretBox(OLD)
    assert box.seal(b"secret", b"row") != box.seal(b"secret", b"row")
