"""What stops the stack, said in one line: whoever reads it must know what to do next."""

from __future__ import annotations


class StackError(Exception):
    """The stack cannot start or go on; the message is one line that says why and what to do."""
