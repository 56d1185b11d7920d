"""What a dead child means: the end of the stack, or a new child."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cli.stack.errors import StackError
from cli.stack.up import RunningStack

RESTARTS_MAX: Final = 20


class StopAll:
    """Ends the stack when a child ends, so that nobody works with half of one."""

    def __init__(self, stack: RunningStack) -> None:
        self._stack = stack

    def __call__(self) -> None:
        """Looks once.

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
        """Looks once.

        Raises:
            StackError: when children keep dying, or one does not come back.
        """
        for child in self._stack.dead():
            if self._left == 0:
                raise StackError(f"{child.death()}; restarted {RESTARTS_MAX} times already")
            self._left -= 1
            self._say(f"{child.death()}; starting it again")
            self._stack.restart(child.name)
