"""The list of mutants fits the code: what each replaces is there once, and its tests exist."""

from __future__ import annotations

from tests.support import mutants


def test_every_entry_of_the_list_fits_the_code_and_names_tests_that_exist():
    assert mutants.read(mutants.ROOT)
