"""`make mutants` tells a kill from a survivor."""

from __future__ import annotations

import subprocess

import pytest

from tests.support import mutants

CODE = """
def double(number):
    return number + number


def wait(number):
    while number < 0:
        pass
    return number
"""
TESTS = """
import pytest
from code_under_test import double, wait

@pytest.mark.parametrize("number", [0, 3])
def test_doubles(number):
    assert double(number) == 2 * number

def test_something_else():
    assert True

class TestWaiting:
    def test_ends(self):
        assert wait(1) == 1
"""
ENTRY = """
[[mutant]]
law = "{law}"
file = "code_under_test.py"
before = '''{before}'''
after = '''{after}'''
tests = [{tests}]
"""
DOUBLES = "tests/test_it.py::test_doubles"
ELSE = "tests/test_it.py::test_something_else"
ENDS = "tests/test_it.py::TestWaiting::test_ends"


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "code_under_test.py").write_text(CODE)
    (tmp_path / "tests" / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def listed(repository, law="doubling", before="number + number", after="number * number", tests=(DOUBLES,)):
    entry = ENTRY.format(law=law, before=before, after=after, tests=", ".join(f'"{test}"' for test in tests))
    with (repository / "tests" / "mutants.toml").open("a") as file:
        file.write(entry)


def test_a_mutant_that_its_tests_notice_is_killed_and_the_repository_is_left_as_it_was(repository, capsys):
    listed(repository)
    listed(repository, law="waiting", before="number < 0", after="number >= 0 and number != 7", tests=(DOUBLES,))
    assert mutants.main([], repository) == 1
    said = capsys.readouterr().out
    assert "killed  doubling" in said
    assert "SURVIVED  waiting" in said
    assert "2 of 2 mutants: 1 killed, 1 survived" in said
    assert (repository / "code_under_test.py").read_text() == CODE


def test_each_of_the_named_tests_has_to_notice(repository, capsys):
    listed(repository, tests=(DOUBLES, ELSE))
    assert mutants.main([], repository) == 1
    assert f"not noticed by {ELSE}" in capsys.readouterr().out


def test_a_test_that_hangs_has_noticed_and_its_neighbour_has_not(repository, capsys, monkeypatch):
    monkeypatch.setattr(mutants, "TEST_SECONDS_MAX", 1)
    listed(repository, law="waiting", before="number < 0", after="number > 0", tests=(ENDS, ELSE))
    assert mutants.main([], repository) == 1
    said = capsys.readouterr().out
    assert f"not noticed by {ELSE}" in said
    assert f"not noticed by {ENDS}" not in said


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"before": "number"}, "occurs 6 times in code_under_test.py, not once"),
        ({"before": "nothing like it"}, "occurs 0 times"),
        ({"after": "number + number"}, "changes nothing"),
        ({"tests": ()}, "names no test"),
        ({"tests": ("tests/test_it.py::test_missing",)}, "there is no test tests/test_it.py::test_missing"),
    ],
)
def test_an_entry_that_does_not_fit_is_refused_before_anything_runs(repository, capsys, changed, said):
    listed(repository, **changed)
    assert mutants.main([], repository) == 1
    assert said in capsys.readouterr().err


def test_a_test_that_fails_without_the_mutant_guards_nothing(repository, capsys):
    (repository / "code_under_test.py").write_text(CODE.replace("number + number", "number + number + 1"))
    listed(repository)
    assert mutants.main([], repository) == 1
    assert f"{DOUBLES}[0] fails without any mutant" in capsys.readouterr().err


def test_broken_code_that_cannot_be_read_is_no_kill(repository, capsys):
    listed(repository, after="number +")
    assert mutants.main([], repository) == 1
    assert "cannot be collected" in capsys.readouterr().err


def test_a_sample_is_chosen_by_the_seed_and_every_entry_is_checked(repository, capsys):
    many = [mutants.Mutant(law=str(n), file="f", before="a", after="b", tests=("t",)) for n in range(50)]
    assert mutants.choose(many, 5, "one commit") == mutants.choose(many, 5, "one commit")
    assert mutants.choose(many, 5, "one commit") != mutants.choose(many, 5, "another commit")
    assert mutants.choose(many, None, "") == mutants.choose(many, 99, "x") == many
    listed(repository)
    listed(repository, law="stale", before="long gone")
    assert mutants.main(["--sample", "1", "--seed", "x"], repository) == 1
    assert "stale: the text to replace occurs 0 times" in capsys.readouterr().err


def test_no_further_mutant_begins_after_the_time_is_over(repository, capsys):
    listed(repository)
    listed(repository, law="doubling again", after="number * 3")
    assert mutants.main(["--seconds-max", "0"], repository) == 0
    assert "1 of 2 mutants: 1 killed" in capsys.readouterr().out


def test_words_that_no_law_contains_run_nothing(repository, capsys):
    listed(repository)
    assert mutants.main(["--match", "no such law"], repository) == 1
    assert "no law and no file contains 'no such law'" in capsys.readouterr().err
