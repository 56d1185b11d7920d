"""Failures of a command: one line on stderr and a status that is not zero, never a traceback."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from cli.remote.failures import CommandFailed, ExitCode
from cli.stack import StackError


@contextlib.contextmanager
def told_in_one_line() -> Iterator[None]:
    """Turn what stops the stack into its line and the exit status."""
    try:
        yield
    except BrokenPipeError:
        raise  # whoever read the output has left; click ends without a word
    except (CommandFailed, StackError, OSError) as error:
        print(f"tollway: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(error.exit_code if isinstance(error, CommandFailed) else ExitCode.REFUSED) from None
    except KeyboardInterrupt:
        raise SystemExit(ExitCode.INTERRUPTED) from None
