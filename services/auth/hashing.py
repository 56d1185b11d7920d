"""Argon2id in a process of its own: `python -m services.auth.hashing` hashes and verifies what it is given on stdin.

A hash takes 64 MiB and all the processor time it can get. In a thread of the service it would take turns with the event
loop at the interpreter's lock and at the kernel's lock of the address space; a thread of low priority that is put aside
while it holds one of them holds up everything else. A process shares neither, so it can have the lowest priority there
is: a question about a key never waits for a sign-in. It knows nothing else of the service: no variable of its
environment, no socket.

One line of JSON is a question, `["hash", password]` or `["verify", hash, password]`, one line is its answer. The end of
stdin ends the process, also where its service was killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import IO, Any, Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

NICENESS: Final = 19
END_SECONDS_MAX: Final = 10.0
_HASHER: Final = PasswordHasher()


def hash_password(password: str) -> str:
    """Hash a password for storage; blocks for tens of milliseconds."""
    return _HASHER.hash(password)


def verify_password(password_hash: str, password: str) -> bool:
    """Tell whether a password fits a hash; blocks for tens of milliseconds."""
    try:
        return _HASHER.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


def needs_rehash(password_hash: str) -> bool:
    """Tell whether a hash was made with other parameters than today's."""
    return _HASHER.check_needs_rehash(password_hash)


class HashProcess:
    """One process that hashes, started when it is first needed, and again when it died. Not for two threads at once."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def hash(self, password: str) -> str:
        """Hash a password for storage; blocks."""
        return str(self._ask("hash", password))

    def verify(self, password_hash: str, password: str) -> bool:
        """Tell whether a password fits a hash; blocks."""
        return bool(self._ask("verify", password_hash, password))

    @property
    def pid(self) -> int | None:
        """Return the process's id, None where there is none."""
        return self._process.pid if self._process else None

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    def _ask(self, *question: str) -> Any:
        line = json.dumps(question).encode() + b"\n"
        answer = self._exchange(line)
        if not answer:
            # It died, for whatever reason; a second one that does is an error.
            self.close()
            answer = self._exchange(line)
        return json.loads(answer)

    def _exchange(self, line: bytes) -> bytes:
        if self._process is None:
            self._process = _start()
        asked, answers = _pipes(self._process)
        try:
            asked.write(line)
            asked.flush()
        except BrokenPipeError:
            return b""
        return answers.readline()


def _start() -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOLLWAY_")}
    command = [sys.executable, "-m", "services.auth.hashing"]
    return subprocess.Popen(  # noqa: S603 - nothing of it comes from outside
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    asked, answers = _pipes(process)
    try:
        asked.close()
    except BrokenPipeError:
        pass
    finally:
        answers.close()
    try:
        process.wait(END_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    if process.stdin is None or process.stdout is None:
        raise ValueError("the process was started with pipes")
    return process.stdin, process.stdout


def main() -> None:
    """Answer questions until there are no more."""
    os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    for line in sys.stdin.buffer:
        work, *values = json.loads(line)
        answer = hash_password(*values) if work == "hash" else verify_password(*values)
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
