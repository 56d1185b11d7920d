"""Passwords verify, and an account that does not exist never does."""

from __future__ import annotations

from argon2 import PasswordHasher

from services.auth.passwords import Passwords, hash_password


async def test_a_password_fits_its_own_hash_only() -> None:
    passwords, stored = Passwords(), hash_password("right")
    assert stored.startswith("$argon2id$")
    assert await passwords.verify(stored, "right")
    assert not await passwords.verify(stored, "wrong")
    assert not await passwords.verify("not a hash", "right")


async def test_without_an_account_nothing_fits() -> None:
    assert not await Passwords().verify(None, "a password that nobody has")


async def test_a_hash_under_older_parameters_is_made_anew() -> None:
    passwords = Passwords()
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("right")
    renewed = await passwords.rehash(weak, "right")
    assert renewed is not None
    assert await passwords.verify(renewed, "right")
    assert await passwords.rehash(renewed, "right") is None
