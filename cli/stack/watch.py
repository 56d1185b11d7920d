"""What the supervisor does on every turn: a dead child or a changed source means an end or a new child.

`tollway dev` compares modification times twice a second. A restart that fails is said and tried again on the next
change, so a half-typed line does not take the stack down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from cli.stack import StackError
from cli.stack.parts import ROOT
from cli.stack.up import RunningStack

RESTARTS_MAX: Final = 20
LOOK_SECONDS: Final = 0.5
SUFFIXES: Final = (".py", ".sql", ".yaml", ".lua")


class StopAll:
    """Ends the stack when a child ends, so that nobody works with half of one."""

    def __init__(self, stack: RunningStack) -> None:
        self._stack = stack

    def __call__(self) -> None:
        """Look once.

        Raises:
            StackError: naming the child, its exit status and its last log line.
        """
        for child in self._stack.dead():
            raise StackError(str(child.death()))


class Restart:
    """Starts a child that ended anew, a bounded number of times; for tests that kill.

    Args:
        stack: What runs.
        say: Told who died.
    """

    def __init__(self, stack: RunningStack, say: Callable[[str], None]) -> None:
        self._stack = stack
        self._say = say
        self._left = RESTARTS_MAX

    def __call__(self) -> None:
        """Look once.

        Raises:
            StackError: when children keep dying, or one does not come back.
        """
        for child in self._stack.dead():
            if self._left == 0:
                raise StackError(f"{child.death()}; restarted {RESTARTS_MAX} times already")
            self._left -= 1
            self._say(f"{child.death()}; starting it again")
            self._stack.restart(child.name)


class Restarter:
    """Compares sources on every turn and restarts whom a change concerns.

    Args:
        stack: What runs.
        say: Told what is restarted, and why a restart failed.
    """

    def __init__(self, stack: RunningStack, say: Callable[[str], None]) -> None:
        self._stack = stack
        self._say = say
        self._sources = stack.sources()
        self._seen = self._look()
        self._look_at = 0.0
        self._told_dead: set[int] = set()

    def __call__(self) -> None:
        """Look, at most every `LOOK_SECONDS`."""
        for child in self._stack.dead():
            if child.process.pid not in self._told_dead:
                self._told_dead.add(child.process.pid)
                self._say(f"{child.death()}; waiting for a change")
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_SECONDS
        now = self._look()
        changed = [name for name in now if now[name] != self._seen[name]]
        self._seen = now
        for name in changed:
            self._restart(name)

    def _restart(self, name: str) -> None:
        self._say(f"restarting {name}: its source changed")
        try:
            self._stack.restart(name)
        except StackError as error:
            self._say(f"{error}; waiting for the next change")

    def _look(self) -> dict[str, float]:
        newest = {
            folder: newest_change(ROOT / folder) for folder in {f for each in self._sources.values() for f in each}
        }
        return {name: max((newest[f] for f in folders), default=0.0) for name, folders in self._sources.items()}


def newest_change(folder: Path) -> float:
    """Return when the newest source file below a folder was changed; 0 when there is none."""
    return max(_times(folder), default=0.0)


def _times(folder: Path) -> Iterable[float]:
    for path in folder.rglob("*"):
        if path.suffix in SUFFIXES:
            try:
                yield path.stat().st_mtime
            except FileNotFoundError:
                continue  # an editor replaced it just now; its successor is seen on the next look
