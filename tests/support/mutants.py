"""Breaks the laws of `tests/mutants.toml` one by one and demands that their tests notice: `make mutants`.

A scratch copy of the repository is made once. It is a repository of its own, and its code is imported before the
installed one. The named tests run there unbroken first: a test that fails anyway guards nothing. Then each mutant is
applied alone, its named tests run, and the file is put back. A mutant is killed when each of its tests fails; a test
that hangs has failed. Code that cannot be collected is no kill: a broken line has to be valid code.

`--sample N --seed S` takes N mutants chosen by S, for example a commit; `--seconds-max` begins no further mutant after
that time. Every entry is checked for the text that it replaces, whether it is run or not.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIST = Path("tests/mutants.toml")
FIELDS = {"law", "file", "before", "after", "tests"}
TEST_SECONDS_MAX = 120
RUN_SECONDS_MAX = 600
# Read by tests/conftest.py; a copy without one runs its properties as they are.
PROFILE = "TESTS_HYPOTHESIS_PROFILE"


class MutantsError(Exception):
    """The list is wrong, or a test guards nothing; the message is a line per entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One law, and how to break it."""

    law: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """What a run of tests said: which failed, and whether it came to its end."""

    failed: frozenset[str]
    uncollected: frozenset[str]
    is_complete: bool

    def fails(self, test: str) -> bool:
        """Say whether a test failed, or one of its cases did."""
        return any(name == test or name.startswith(f"{test}[") for name in self.failed)


def read(root: Path) -> list[Mutant]:
    """Read the list and check every entry against the code.

    Raises:
        MutantsError: entries that lack something, replace a text that does not occur once, or name no test.
    """
    entries = tomllib.loads((root / LIST).read_text(encoding="utf-8")).get("mutant", [])
    complaints = [f"{entry.get('law', entry)}: {what}" for entry in entries for what in _complaints(root, entry)]
    if complaints:
        raise MutantsError("\n".join(complaints))
    return [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]


def _complaints(root: Path, entry: dict[str, object]) -> Iterator[str]:
    if set(entry) != FIELDS:
        yield f"it must have exactly {', '.join(sorted(FIELDS))}"
        return
    path, before = root / str(entry["file"]), str(entry["before"])
    if not path.is_file():
        yield f"{entry['file']} is not there"
    elif (times := path.read_text(encoding="utf-8").count(before)) != 1:
        yield f"the text to replace occurs {times} times in {entry['file']}, not once"
    if before == entry["after"]:
        yield "it changes nothing"
    tests = entry["tests"]
    if not isinstance(tests, list) or not tests:
        yield "it names no test"
        return
    for test in tests:
        file, _, name = test.partition("::")
        source = (root / file).read_text(encoding="utf-8") if (root / file).is_file() else ""
        if not name or f"def {name.split('::')[-1].split('[')[0]}(" not in source:
            yield f"there is no test {test}"


def matching_of(mutants: Sequence[Mutant], words: str) -> list[Mutant]:
    """Return the mutants whose law or file contains some words.

    Raises:
        MutantsError: There is none.
    """
    found = [each for each in mutants if words in each.law or words in each.file]
    if not found:
        raise MutantsError(f"no law and no file contains {words!r}")
    return found


def choose(mutants: Sequence[Mutant], sample: int | None, seed: str) -> list[Mutant]:
    """Return the mutants to run: all of them, or some chosen by the seed."""
    if sample is None or sample >= len(mutants):
        return list(mutants)
    return random.Random(seed).sample(mutants, sample)


@contextmanager
def scratch_copy(root: Path) -> Iterator[Path]:
    """Copy what git knows or would add; the copy is a repository, for the tests that ask git."""
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    # Below the temporary folder itself: pytest's own are closed to the user that the embedded PostgreSQL runs as.
    with tempfile.TemporaryDirectory(prefix="tollway-mutants-") as folder:
        copy = Path(folder)
        copy.chmod(0o711)
        for name in filter(None, listed):
            if (root / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, copy / name)
        _git(copy, "init", "-q")
        _git(copy, "add", "-A")
        yield copy


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def run_tests(copy: Path, tests: Sequence[str]) -> Outcomes:
    """Run tests in the copy, in a process of their own."""
    report = copy / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider"]
    command += ["--timeout", str(TEST_SECONDS_MAX), "--junitxml", str(report), *tests]
    paths = os.pathsep.join([str(copy), str(copy / "gen" / "python")])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", PROFILE: "first-failure"}
    try:
        subprocess.run(command, cwd=copy, env=environment, capture_output=True, check=False, timeout=RUN_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        return Outcomes(failed=frozenset(), uncollected=frozenset(), is_complete=False)
    if not report.exists():  # pytest-timeout ends the whole process
        return Outcomes(failed=frozenset(), uncollected=frozenset(), is_complete=False)
    return _outcomes(report)


def _outcomes(report: Path) -> Outcomes:
    failed, uncollected = set(), set()
    for case in ET.parse(report).getroot().iter("testcase"):
        if case.find("failure") is None and case.find("error") is None:
            continue
        if case.get("classname"):
            failed.add(_test_id(str(case.get("classname")), str(case.get("name"))))
        else:
            uncollected.add(str(case.get("name")))
    return Outcomes(failed=frozenset(failed), uncollected=frozenset(uncollected), is_complete=True)


def _test_id(classname: str, name: str) -> str:
    """Return `tests/unit/x/test_y.py::TestZ::test_a[1]` for what JUnit's format calls `tests.unit.x.test_y.TestZ`."""
    parts = classname.split(".")
    module = next(n for n, part in enumerate(parts, start=1) if part.startswith("test_"))
    return "::".join([f"{'/'.join(parts[:module])}.py", *parts[module:], name])


def survivors_of(copy: Path, mutant: Mutant) -> list[str]:
    """Apply a mutant, run its tests and put the file back; return its tests that did not notice.

    Raises:
        MutantsError: the broken code cannot be collected, so nothing was shown.
    """
    path = copy / mutant.file
    intact = path.read_text(encoding="utf-8")
    path.write_text(intact.replace(mutant.before, mutant.after), encoding="utf-8")
    try:
        outcomes = run_tests(copy, mutant.tests)
        if outcomes.uncollected:
            raise MutantsError(f"{mutant.law}: cannot be collected: {', '.join(sorted(outcomes.uncollected))}")
        if outcomes.is_complete:
            return [test for test in mutant.tests if not outcomes.fails(test)]
        if len(mutant.tests) == 1:
            return []
        return [test for test in mutant.tests if not _notices(copy, test)]
    finally:
        path.write_text(intact, encoding="utf-8")


def _notices(copy: Path, test: str) -> bool:
    outcomes = run_tests(copy, [test])
    return not outcomes.is_complete or outcomes.fails(test)


def require_green(copy: Path, mutants: Sequence[Mutant]) -> None:
    """Run all named tests on the intact copy.

    Raises:
        MutantsError: naming the tests that fail without any mutant.
    """
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    outcomes = run_tests(copy, tests)
    if not outcomes.is_complete:
        raise MutantsError("the tests hang without any mutant")
    red = sorted(outcomes.failed | outcomes.uncollected)
    if red:
        raise MutantsError("\n".join(f"{test} fails without any mutant" for test in red))


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Run the mutants; return 1 when one survives or the list is wrong."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, help="run this many, chosen by the seed")
    parser.add_argument("--seed", default="", help="what chooses them, for example a commit")
    parser.add_argument("--seconds-max", type=float, default=float("inf"), help="begin no further mutant after this")
    parser.add_argument("--match", default="", help="run only those whose law or file contains this")
    given = parser.parse_args(arguments)
    begun = time.monotonic()
    try:
        matching = matching_of(read(root), given.match)
        chosen = choose(matching, given.sample, given.seed)
        with scratch_copy(root) as copy:
            require_green(copy, chosen)
            survived, run_count = _run(copy, chosen, begun + given.seconds_max)
    except MutantsError as error:
        print(error, file=sys.stderr)
        return 1
    took = time.monotonic() - begun
    print(f"{run_count} of {len(matching)} mutants: {run_count - survived} killed, {survived} survived, {took:.0f} s")
    return 1 if survived else 0


def _run(copy: Path, chosen: Sequence[Mutant], deadline: float) -> tuple[int, int]:
    survived = run_count = 0
    for mutant in chosen:
        if run_count and time.monotonic() > deadline:
            break
        unnoticed = survivors_of(copy, mutant)
        run_count += 1
        survived += bool(unnoticed)
        print(f"{'SURVIVED' if unnoticed else 'killed'}  {mutant.law}", flush=True)
        for test in unnoticed:
            print(f"          not noticed by {test}", flush=True)
    return survived, run_count


if __name__ == "__main__":
    sys.exit(main())
