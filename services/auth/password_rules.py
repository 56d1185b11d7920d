"""What a password may be (NIST SP 800-63B section 3.1.1.2): long enough, and not among the first that are guessed.

A password is counted and hashed in Unicode's form NFKC, so that the same keys on another device are the same password.
It has 8 to 200 code points of any kind; nothing is cut off and no kinds are demanded. Refused is what is on the list of
the 30,000 passwords seen most often in leaks (zxcvbn's), and what whoever guesses knows already: the service's name,
the person's address and names. Both are compared without regard to letter case.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Final

from zxcvbn.frequency_lists import FREQUENCY_LISTS

from mesh.rpc.errors import Violations

LENGTH_MIN: Final = 8
LENGTH_MAX: Final = 200
TYPED_LENGTH_MAX: Final = 1_000
"""Code points as they were typed; NFKC makes of one at most 18."""
SERVICE_NAMES: Final = ("tollway",)

_COMMON: Final = frozenset(
    password.casefold() for password in FREQUENCY_LISTS["passwords"] if len(password) >= LENGTH_MIN
)


def normalized(password: str) -> str:
    """Return a password as it is counted and hashed."""
    return unicodedata.normalize("NFKC", password)


def read_password(violations: Violations, field: str, password: str) -> str:
    """Return a password that may be somebody's, ready to be verified; one that cannot be is noted."""
    if violations.check(len(password) <= TYPED_LENGTH_MAX, field, f"must have 1 to {LENGTH_MAX} characters"):
        password = normalized(password)
        violations.check(1 <= len(password) <= LENGTH_MAX, field, f"must have 1 to {LENGTH_MAX} characters")
    return password


def read_new_password(violations: Violations, field: str, password: str, *, known: Iterable[str] = ()) -> str:
    """Return a password that is to be somebody's, ready to be hashed; one that may not be is noted.

    Args:
        violations: What is wrong with the request.
        field: The password's.
        password: As it was typed.
        known: What whoever guesses knows of the person: address, names.
    """
    length = f"must have {LENGTH_MIN} to {LENGTH_MAX} characters"
    if not violations.check(len(password) <= TYPED_LENGTH_MAX, field, length):
        return password
    password = normalized(password)
    if violations.check(LENGTH_MIN <= len(password) <= LENGTH_MAX, field, length):
        violations.check(not is_guessed_first(password, known), field, "is among the first that are guessed")
    return password


def check_not_known(violations: Violations, field: str, password: str, *, known: Iterable[str]) -> None:
    """Note a password that is made of what is known of its person; it has been read as a new one before."""
    violations.check(password.casefold() not in _derived(known), field, "is among the first that are guessed")


def is_guessed_first(password: str, known: Iterable[str] = ()) -> bool:
    """Tell whether a password is a common one, or one of the words that are known of its person."""
    folded = password.casefold()
    return folded in _COMMON or folded in _derived(known)


def _derived(known: Iterable[str]) -> set[str]:
    words = {normalized(word).casefold().strip() for word in (*SERVICE_NAMES, *known)}
    words |= {word.partition("@")[0] for word in words}
    # A word that is too short is made long enough by saying it twice, or by counting.
    return {word + end for word in words for end in ("", word, "1", "12", "123", "1234", "!")}
