"""`tollway`: one command for the local stack and what belongs to it. `python -m cli` is the same."""

from __future__ import annotations

import signal


def main() -> None:
    """Run a command. Ctrl-C ends it without a word until it says otherwise itself, as `up` does."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from cli.commands.group import tollway  # noqa: PLC0415 - takes half a second, and Ctrl-C may come within it

    tollway(prog_name="tollway")


if __name__ == "__main__":
    main()
