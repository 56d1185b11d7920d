"""The local stack: every part of Tollway, real, started and stopped by one process."""

from __future__ import annotations


class StackError(Exception):
    """The stack cannot start or go on; the message is one line that says why and what to do."""
