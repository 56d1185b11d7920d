"""Where something went wrong, without what it was about.

The message of an exception often quotes its input: a header with a token, a password that is no number. A log line of
the gateway therefore holds the kinds of the exceptions and the places in the code, which are enough to find the fault,
and none of the words.
"""

from __future__ import annotations

import traceback
from typing import Final

FRAMES_MAX: Final = 12
CAUSES_MAX: Final = 4


def frames_of(error: object) -> list[str]:
    """Return one line per exception and place, the newest first.

    Args:
        error: An exception with its causes; anything else has no frames.
    """
    lines: list[str] = []
    current = error
    for _ in range(CAUSES_MAX):
        if not isinstance(current, BaseException):
            break
        lines.append(f"{type(current).__module__}.{type(current).__qualname__}")
        stack = traceback.extract_tb(current.__traceback__)
        lines += [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(stack[-FRAMES_MAX:])]
        current = current.__cause__ or current.__context__
    return lines
