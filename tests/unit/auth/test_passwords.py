"""Passwords verify, and an account that does not exist never does."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator

import psutil
import pytest
from argon2 import PasswordHasher

from services.auth import hashing as hashing_module
from services.auth import passwords as module
from services.auth.errors import SignInBusy
from services.auth.hashing import HashProcess
from services.auth.passwords import Passwords, hash_password


async def test_a_password_fits_its_own_hash_only() -> None:
    passwords, stored = Passwords(), hash_password("right")
    assert stored.startswith("$argon2id$")
    assert await passwords.verify(stored, "right")
    assert not await passwords.verify(stored, "wrong")
    assert not await passwords.verify("not a hash", "right")


async def test_without_an_account_nothing_fits() -> None:
    assert not await Passwords().verify(None, "a password that nobody has")


async def test_a_hash_under_older_parameters_is_made_anew() -> None:
    passwords = Passwords()
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("right")
    renewed = await passwords.rehash(weak, "right")
    assert renewed is not None
    assert await passwords.verify(renewed, "right")
    assert await passwords.rehash(renewed, "right") is None


class Hashing:
    """Stands in for the work of a hash: runs until it may end, and counts."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.running = 0
        self.at_once = 0
        self._lock = threading.Lock()

    def __call__(self, *_values: str) -> bool:
        with self._lock:
            self.running += 1
            self.at_once = max(self.at_once, self.running)
        self.may_end.wait(30)
        with self._lock:
            self.running -= 1
        return True


@pytest.fixture
def hashing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hashing]:
    work = Hashing()
    monkeypatch.setattr(module, "_verify", work)
    yield work
    work.may_end.set()


async def test_a_flood_waits_in_a_bounded_queue_and_familiar_people_pass_by(hashing: Hashing) -> None:
    passwords = Passwords()
    places = module.STRANGERS_AT_ONCE_MAX + module.STRANGERS_WAITING_MAX
    strangers = [asyncio.create_task(passwords.verify("h", "p")) for _ in range(places + 20)]
    await asyncio.wait(strangers, return_when=asyncio.FIRST_EXCEPTION, timeout=30)
    familiar = asyncio.create_task(passwords.verify("h", "p", is_familiar=True))
    await asyncio.sleep(0)
    hashing.may_end.set()
    assert await familiar
    outcomes = await asyncio.gather(*strangers, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, SignInBusy)]
    assert (len(refused), outcomes.count(True)) == (20, places)
    assert refused[0].retry_after_seconds == module.BUSY_RETRY_SECONDS
    assert hashing.at_once <= module.STRANGERS_AT_ONCE_MAX + module.FAMILIAR_AT_ONCE_MAX
    await passwords.close()


async def test_callers_who_leave_do_not_make_room_for_more_work(hashing: Hashing) -> None:
    passwords = Passwords()
    for _ in range(30):
        caller = asyncio.create_task(passwords.verify("h", "p"))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
    queue = passwords._strangers
    assert queue._threads._work_queue.qsize() == 0
    assert hashing.at_once <= module.STRANGERS_AT_ONCE_MAX
    hashing.may_end.set()
    assert await passwords.verify("h", "p")
    await passwords.close()


async def test_one_network_of_newcomers_leaves_room_for_others_and_for_who_signs_in(hashing: Hashing) -> None:
    passwords = Passwords()
    flood = [
        asyncio.create_task(passwords.verify_newcomer("h", "p", network="203.0.113.9"))
        for _ in range(module.NEWCOMERS_WAITING_MAX * 2)
    ]
    await asyncio.sleep(0)
    other = asyncio.create_task(passwords.verify_newcomer("h", "p", network="192.0.2.1"))
    stranger = asyncio.create_task(passwords.verify("h", "p"))
    own = asyncio.create_task(passwords.verify_own("h", "p", person="ada"))
    await asyncio.sleep(0)
    hashing.may_end.set()
    assert await asyncio.gather(other, stranger, own) == [True, True, True]
    outcomes = await asyncio.gather(*flood, return_exceptions=True)
    served = module.NEWCOMERS_AT_ONCE_MAX + module.WAITING_PER_SOURCE_MAX
    assert outcomes.count(True) == served
    assert sum(isinstance(outcome, SignInBusy) for outcome in outcomes) == len(flood) - served
    await passwords.close()


async def test_hashes_run_in_processes_of_the_lowest_priority_that_know_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOLLWAY_SIGNING_KEY", "a secret")
    own = os.getpriority(os.PRIO_PROCESS, 0)
    passwords, stored = Passwords(), hash_password("right")
    assert await passwords.verify(stored, "right")
    assert await passwords.verify(stored, "right", is_familiar=True)
    pids = [helper.pid for queue in (passwords._strangers, passwords._familiar) for helper in queue._helpers]
    assert len(pids) == 2
    for pid in pids:
        assert os.getpriority(os.PRIO_PROCESS, pid) == hashing_module.NICENESS
        assert "TOLLWAY_SIGNING_KEY" not in psutil.Process(pid).environ()
    assert os.getpriority(os.PRIO_PROCESS, 0) == own
    await passwords.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


async def test_a_process_that_dies_is_replaced() -> None:
    helper, stored = HashProcess(), hash_password("right")
    assert helper.verify(stored, "right")
    before = helper.pid
    os.kill(before, signal.SIGKILL)
    assert helper.verify(stored, "right")
    assert not helper.verify(stored, "wrong")
    assert helper.pid != before
    assert helper.verify(helper.hash("line\nbreak \u00e9 \U0001f511"), "line\nbreak \u00e9 \U0001f511")
    helper.close()
