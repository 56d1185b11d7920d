"""Ties a child's life to its parent's, so that even a supervisor that is SIGKILLed leaves nothing behind.

Linux sends the signal when the *thread* that forked the child ends: children are started from the main thread only.
The setting is cleared when a process changes its user, so it is made after `subprocess` has done that, in `preexec_fn`.
Elsewhere (macOS) this is a no-op and a killed supervisor leaves its children to be stopped by hand.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1

# Loaded here because a forked child must not load libraries.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(death_signal: signal.Signals, niceness: int = 0) -> Callable[[], None]:
    """Returns a `preexec_fn` that asks the kernel for `death_signal` when the parent ends.

    Args:
        death_signal: What the child gets.
        niceness: How far it steps back behind others on a machine that they share, 0 to 19.

    The child also leaves the terminal's process group: Ctrl-C reaches the supervisor alone, which stops its children
    in their order.
    """
    parent_pid = os.getpid()

    def prepare_child() -> None:
        os.setpgid(0, 0)
        os.nice(niceness)
        if _LIBC is None:
            return
        _LIBC.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent_pid:
            os._exit(1)  # the parent ended between fork and prctl: nobody would ever stop this child

    return prepare_child
