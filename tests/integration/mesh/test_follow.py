"""Notices are hints: lost, doubled, made up or far too many, what is read from the tables is right."""

from __future__ import annotations

import asyncio
import contextlib

import asyncpg
import pytest

from mesh.database import follow as module
from mesh.database.follow import follow
from tests.support.cut_off import cuttable

WAIT_SECONDS = 20
CHANNEL = "news"


class Reader:
    """Writes down what it is told; `gate` holds it up."""

    def __init__(self):
        self.told = asyncio.Queue()
        self.gate = asyncio.Event()
        self.gate.set()
        self.busy = asyncio.Event()
        self.fails = 0

    async def changed(self, payloads):
        self.busy.set()
        await self.gate.wait()
        if self.fails:
            self.fails -= 1
            raise ZeroDivisionError
        self.told.put_nowait(payloads)

    async def read_all(self):
        self.told.put_nowait("all")

    def lost(self):
        self.told.put_nowait("lost")

    async def next(self):
        return await asyncio.wait_for(self.told.get(), WAIT_SECONDS)

    async def until(self, wanted):
        async with asyncio.timeout(WAIT_SECONDS):
            while await self.told.get() != wanted:
                pass


@contextlib.asynccontextmanager
async def followed(dsn, **options):
    reader = Reader()
    task = asyncio.create_task(
        follow(dsn, CHANNEL, changed=reader.changed, read_all=reader.read_all, lost=reader.lost, **options)
    )
    try:
        assert await reader.next() == "all"
        yield reader
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def sender(database):
    """Any role may notify: this one has nothing to do with the listener's."""
    connection = await asyncpg.connect(database.dsn("notification"))
    yield connection
    await connection.close()


async def notify(sender, *payloads):
    await sender.executemany(f"SELECT pg_notify('{CHANNEL}', $1)", [(payload,) for payload in payloads])


async def test_payloads_come_each_once_however_often_they_were_sent(database, sender):
    async with followed(database.dsn("ratelimit_system")) as reader:
        reader.gate.clear()
        await notify(sender, "first")
        await notify(sender, *["a", "b", "a"] * 3)
        reader.gate.set()
        heard = set()
        while heard != {"first", "a", "b"}:
            heard |= await reader.next()


async def test_a_cut_line_is_noticed_and_everything_read_again(database, sender):
    async with cuttable(database) as (way, near), followed(near.dsn("ratelimit_system")) as reader:
        way.cut()
        assert await reader.next() == "lost"
        await notify(sender, "missed")
        await way.open()
        await reader.until("all")
        await notify(sender, "heard")
        assert await reader.next() == {"heard"}


async def test_a_reader_that_fails_reads_everything_again(database, sender):
    async with followed(database.dsn("ratelimit_system")) as reader:
        reader.fails = 1
        await notify(sender, "a")
        assert [await reader.next(), await reader.next()] == ["lost", "all"]


async def listeners(database):
    admin = await asyncpg.connect(database.dsn("admin"))
    try:
        return await admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'tollway_ratelimit_system'"
            " AND datname = current_database()"
        )
    finally:
        await admin.close()


async def test_a_flood_is_not_listened_to_and_then_everything_is_read_from_the_tables(database, sender, monkeypatch):
    monkeypatch.setattr(module, "PAUSE_AFTER_OVERFLOW_SECONDS", 3_600.0)
    monkeypatch.setattr(module, "NOTICES_MAX", 50)
    async with followed(database.dsn("ratelimit_system")) as reader:
        # The reader is busy all the while, and the same word again and again is a flood as well.
        reader.gate.clear()
        await notify(sender, "first")
        await asyncio.wait_for(reader.busy.wait(), WAIT_SECONDS)
        for _ in range(module.NOTICES_MAX + 1):
            await notify(sender, "x")
        async with asyncio.timeout(WAIT_SECONDS):
            while await listeners(database):
                await asyncio.sleep(0.01)


async def test_after_a_flood_everything_is_read_again_and_nothing_counts_as_lost(database, sender, monkeypatch):
    monkeypatch.setattr(module, "PAUSE_AFTER_OVERFLOW_SECONDS", 0.0)
    async with followed(database.dsn("ratelimit_system")) as reader:
        reader.gate.clear()
        await notify(sender, "first")
        await notify(sender, *(str(number) for number in range(module.NOTICES_MAX + 2)))
        reader.gate.set()
        heard = []
        while "all" not in heard:
            heard.append(await reader.next())
        assert "lost" not in heard
        await notify(sender, "after")
        await reader.until({"after"})


async def test_an_endless_payload_is_none_of_ours(database, sender):
    async with followed(database.dsn("ratelimit_system")) as reader:
        await notify(sender, "x" * (module.PAYLOAD_LENGTH_MAX + 1), "short")
        assert await reader.next() == {"short"}


async def test_silence_is_ended_by_a_refresh(database):
    async with followed(database.dsn("ratelimit_system"), refresh_seconds=0.01) as reader:
        assert [await reader.next(), await reader.next()] == ["all", "all"]
