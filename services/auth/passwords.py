"""Passwords: argon2id (RFC 9106), off the event loop, and as slow for a stranger as for a customer.

A hash takes tens of milliseconds and 64 MiB by design, so it runs in processes of their own (`hashing`) and only a few
run at once: a flood of sign-ins must not take the memory of the machine. Whoever does not get a place in the bounded
queue is told to come back. There are three queues. A flood of strangers who sign in fills its own, and people who sign
in from where they did before, or change something of their own account, pass by it. Newcomers, who register or set a
password with a token, have the third, so neither they nor those who sign in hold the others up. Of newcomers one
network has a share of the queue at most, and so has one person of those who change their account. A hash whose caller
has left keeps its place until it is done, because it cannot be stopped.

Whoever signs in waits for the edges' questions about keys and not the other way round (`make bench-auth`). A machine
that has nothing to spare still hashes, slowly, and the queues say that it is busy.

Passwords come here as `password_rules` has read them.

An address that nobody has is verified against a dummy hash, so the time of the answer does not tell whether an account
exists.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from services.auth import hashing
from services.auth.errors import SignInBusy
from services.auth.hashing import HashProcess, needs_rehash, verify_password

STRANGERS_AT_ONCE_MAX: Final = 3
STRANGERS_WAITING_MAX: Final = 48
FAMILIAR_AT_ONCE_MAX: Final = 1
FAMILIAR_WAITING_MAX: Final = 16
NEWCOMERS_AT_ONCE_MAX: Final = 1
NEWCOMERS_WAITING_MAX: Final = 24
WAITING_PER_SOURCE_MAX: Final = 4
"""Of newcomers from one network, and of one person who changes their account."""
BUSY_RETRY_SECONDS: Final = 2.0

Result = TypeVar("Result")


def hash_password(password: str) -> str:
    """Hash a password for storage; blocks for tens of milliseconds."""
    helper = _this_thread.helper
    return helper.hash(password) if helper else hashing.hash_password(password)


class Passwords:
    """Hashes and verifies passwords without holding up the event loop or what else the machine does."""

    def __init__(self) -> None:
        self._strangers = _Queue(at_once_max=STRANGERS_AT_ONCE_MAX, waiting_max=STRANGERS_WAITING_MAX)
        self._familiar = _Queue(at_once_max=FAMILIAR_AT_ONCE_MAX, waiting_max=FAMILIAR_WAITING_MAX)
        self._newcomers = _Queue(at_once_max=NEWCOMERS_AT_ONCE_MAX, waiting_max=NEWCOMERS_WAITING_MAX)
        self._dummy_hash = hash_password("a password that nobody has")

    async def verify(self, password_hash: str | None, password: str, *, is_familiar: bool = False) -> bool:
        """Tell whether a password fits a hash; without a hash it never does, after the same work.

        Args:
            password_hash: What is stored, or None where there is no such account.
            password: What was typed.
            is_familiar: Whether the attempt comes from where the account signed in before.

        Raises:
            SignInBusy: Too many wait already.
        """
        queue = self._familiar if is_familiar else self._strangers
        fits = await queue.run(_verify, password_hash or self._dummy_hash, password)
        return fits and password_hash is not None

    async def verify_newcomer(self, password_hash: str, password: str, *, network: str) -> bool:
        """Tell whether a password fits the hash of a registration.

        Raises:
            SignInBusy: Too many wait already.
        """
        return await self._newcomers.run(_verify, password_hash, password, source=network)

    async def verify_own(self, password_hash: str, password: str, *, person: str) -> bool:
        """Tell whether a password fits the hash of a person who is signed in.

        Raises:
            SignInBusy: Too many wait already.
        """
        return await self._familiar.run(_verify, password_hash, password, source=person)

    async def hash_newcomers(self, password: str, *, network: str) -> str:
        """Hash a password that is set without being signed in.

        Raises:
            SignInBusy: Too many wait already.
        """
        return await self._newcomers.run(hash_password, password, source=network)

    async def hash_own(self, password: str, *, person: str) -> str:
        """Hash a password that a person sets who is signed in.

        Raises:
            SignInBusy: Too many wait already.
        """
        return await self._familiar.run(hash_password, password, source=person)

    async def rehash(self, password_hash: str, password: str) -> str | None:
        """Return a hash under today's parameters where the stored one is under older ones, else None.

        Raises:
            SignInBusy: Too many wait already.
        """
        if not needs_rehash(password_hash):
            return None
        return await self._familiar.run(hash_password, password)

    async def close(self) -> None:
        """Let the hashes that run end, and then the processes."""
        queues = (self._strangers, self._familiar, self._newcomers)
        await asyncio.gather(*(asyncio.to_thread(queue.close) for queue in queues))


class _Queue:
    """Threads, each with a process that hashes for it, and a bounded number of callers that wait for one."""

    def __init__(self, *, at_once_max: int, waiting_max: int) -> None:
        self._slots = asyncio.Semaphore(at_once_max)
        self._threads = ThreadPoolExecutor(at_once_max, thread_name_prefix="password")
        self._helpers: list[HashProcess] = []
        self._waiting: Counter[str] = Counter()
        self._waiting_max = waiting_max

    async def run(self, work: Callable[..., Result], *values: str, source: str = "") -> Result:
        full = self._waiting.total() >= self._waiting_max
        if full or (source and self._waiting[source] >= WAITING_PER_SOURCE_MAX):
            raise SignInBusy(retry_after_seconds=BUSY_RETRY_SECONDS)
        self._waiting[source] += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting[source] -= 1
            if not self._waiting[source]:
                del self._waiting[source]
        running = asyncio.get_running_loop().run_in_executor(self._threads, self._work, work, *values)
        running.add_done_callback(lambda _: self._slots.release())
        return await asyncio.shield(running)

    def _work(self, work: Callable[..., Result], *values: str) -> Result:
        if _this_thread.helper is None:
            _this_thread.helper = HashProcess()
            self._helpers.append(_this_thread.helper)
        return work(*values)

    def close(self) -> None:
        """Let the hashes end that run, and then their processes; blocks as long."""
        self._threads.shutdown(cancel_futures=True)
        for helper in self._helpers:
            helper.close()


class _ThisThread(threading.local):
    """The process that hashes for a thread of a queue; None in any other thread."""

    helper: HashProcess | None = None


_this_thread: Final = _ThisThread()


def _verify(password_hash: str, password: str) -> bool:
    """Verify in the process of this thread."""
    helper = _this_thread.helper
    return helper.verify(password_hash, password) if helper else verify_password(password_hash, password)
