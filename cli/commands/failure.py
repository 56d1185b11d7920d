"""Failures of a command: one line on stderr and a status that is not zero, never a traceback."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Final

from cli.stack import StackError

FAILED: Final = 1
INTERRUPTED: Final = 130  # as shells report SIGINT


@contextlib.contextmanager
def told_in_one_line() -> Iterator[None]:
    """Turn what stops the stack into its line and the exit status."""
    try:
        yield
    except (StackError, OSError) as error:
        print(f"tollway: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(FAILED) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
