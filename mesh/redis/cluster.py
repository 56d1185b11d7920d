"""A Redis Cluster as one pipe: redis-py keeps the slot map, one pipelined connection leads to each node.

Every command goes to the node that has its key's slot. A node that no longer has it answers MOVED: the command is sent
once more where it says, and redis-py's map is told. A slot that is on its way answers ASK: the command is sent once
more, behind ASKING, to the other node. So a call sees redirects as a longer wait. A command that finds no node has an
error for its reply; what lives on other nodes is answered.

**Order.** Commands of one slot are in order while it stays where it is. While it moves, those that are on their way may
change places.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis
import structlog
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import MovedError, RedisError

from mesh.redis.pipe import TIMEOUT_SECONDS, SinglePipe
from mesh.redis.source import CONNECT_TIMEOUT_SECONDS, NodeSource, RedisUrl
from mesh.redis.wire import Command, RedisUnavailable, Reply

REDIRECTS_MAX: Final = 3
REFRESH_PAUSE_SECONDS: Final = 0.5
# A safety net under what MOVED says: nodes that come and go without being asked.
REFRESH_INTERVAL_SECONDS: Final = 30.0
_ASKING: Final[Command] = ("ASKING",)
_NO_NODE: Final = "CLUSTERDOWN no node that answers has this slot"

Address = tuple[str, int]

log = structlog.get_logger()


class ClusterPipe:
    """The way to a cluster.

    Args:
        url: Some of its nodes, and what opens them.
        timeout_seconds: How long a command may wait at one node.
        greeting: Commands for every new connection.
    """

    def __init__(
        self,
        url: RedisUrl,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        greeting: Callable[[], Sequence[Command]] = tuple,
    ) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._greeting = greeting
        self._map: RedisCluster | None = None
        self._pipes: dict[Address, SinglePipe] = {}
        self._loops: dict[Address, asyncio.Task[None]] = {}
        self._calls: set[asyncio.Task[list[Reply]]] = set()
        self._stale = asyncio.Event()
        self.connected = asyncio.Event()

    def call(self, commands: Sequence[Command], keys: Sequence[bytes] = ()) -> asyncio.Future[list[Reply]]:
        """Send each command to the node that has its key; see `RedisPipe`.

        A command whose node does not answer has an error for a reply; the others are answered.
        """
        if self._map is None:
            answered: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
            answered.set_exception(RedisUnavailable("the cluster is not known yet"))
            return answered
        sent = self._send([self._address(key) for key in keys], commands)
        task = asyncio.get_running_loop().create_task(self._collect(commands, sent))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return task

    async def ping(self) -> None:
        """Ask every node with slots for a sign of life; see `RedisPipe`."""
        if self._map is None:
            raise RedisUnavailable("the cluster is not known yet")
        for address in self._primaries(self._map):
            await self._pipe(address).ping()

    async def run(self) -> None:
        """Keep the map and the connections until cancelled."""
        try:
            while True:
                self._stale.clear()
                await self._refresh()
                try:
                    async with asyncio.timeout(REFRESH_INTERVAL_SECONDS):
                        await self._stale.wait()
                except TimeoutError:
                    continue
        finally:
            await self._stop(list(self._loops))
            if self._map is not None:
                await self._map.aclose()

    async def _refresh(self) -> None:
        """Read the slot map anew, connect to nodes that have come, and let go of those that have gone."""
        fresh = self._new_map()
        try:
            await fresh.initialize()
        except (OSError, RedisError) as error:
            log.warning("redis_cluster_unknown", detail=repr(error))
            await fresh.aclose()
            self._stale.set()
            await asyncio.sleep(REFRESH_PAUSE_SECONDS)
            return
        old, self._map = self._map, fresh
        if old is not None:
            await old.aclose()
        wanted = self._primaries(fresh)
        await self._stop([address for address in self._loops if address not in wanted])
        opening = [asyncio.create_task(self._pipe(address).connected.wait()) for address in wanted]
        if not self.connected.is_set():
            await asyncio.wait(opening, timeout=CONNECT_TIMEOUT_SECONDS)
        for task in opening:
            task.cancel()
        self.connected.set()
        # Several MOVED answers of one migration are one refresh.
        await asyncio.sleep(REFRESH_PAUSE_SECONDS)

    def _new_map(self) -> RedisCluster:
        options: dict[str, Any] = {
            name: value
            for name, value in self._url.options.items()
            if name not in {"host", "port", "db", "connection_class"}
        }
        options["ssl"] = "connection_class" in self._url.options
        options["retry"] = Retry(NoBackoff(), 0)
        return RedisCluster(startup_nodes=[ClusterNode(host, port) for host, port in self._url.hosts], **options)

    def _primaries(self, cluster: RedisCluster) -> list[Address]:
        return [(str(node.host), int(node.port)) for node in cluster.get_primaries()]

    def _address(self, key: bytes) -> Address | None:
        if self._map is None:
            return None
        nodes = self._map.nodes_manager.slots_cache.get(key_slot(key))
        return (str(nodes[0].host), int(nodes[0].port)) if nodes else None

    def _pipe(self, address: Address) -> SinglePipe:
        pipe = self._pipes.get(address)
        if pipe is None:
            pipe = self._pipes[address] = SinglePipe(
                NodeSource(self._url, *address), timeout_seconds=self._timeout_seconds, greeting=self._greeting
            )
            self._loops[address] = asyncio.get_running_loop().create_task(pipe.run())
        return pipe

    async def _stop(self, addresses: Sequence[Address]) -> None:
        loops = [self._loops.pop(address) for address in addresses]
        for address, loop in zip(addresses, loops, strict=True):
            self._pipes.pop(address)
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)

    def _send(
        self, addresses: Sequence[Address | None], commands: Sequence[Command]
    ) -> list[tuple[list[int], asyncio.Future[list[Reply]]]]:
        """Write commands, one write per node, and return which of them each future answers."""
        by_node: dict[Address, list[int]] = {}
        for number, address in enumerate(addresses):
            if address is not None:
                by_node.setdefault(address, []).append(number)
        return [
            (numbers, self._pipe(address).call([commands[number] for number in numbers]))
            for address, numbers in by_node.items()
        ]

    async def _collect(
        self, commands: Sequence[Command], sent: list[tuple[list[int], asyncio.Future[list[Reply]]]]
    ) -> list[Reply]:
        replies: list[Reply] = [hiredis.ReplyError(_NO_NODE) for _ in commands]
        for numbers, answered in sent:
            try:
                for number, reply in zip(numbers, await answered, strict=True):
                    replies[number] = reply
            except RedisUnavailable as error:
                self._stale.set()
                for number in numbers:
                    replies[number] = hiredis.ReplyError(f"UNAVAILABLE {error}")
        for _ in range(REDIRECTS_MAX):
            moved = [number for number, reply in enumerate(replies) if _is_redirect(reply)]
            if not moved:
                break
            for number in moved:
                replies[number] = await self._redirect(commands[number], str(replies[number]))
        return replies

    async def _redirect(self, command: Command, said: str) -> Reply:
        kind, rest = said.split(" ", 1)
        target = MovedError(rest)
        pipe = self._pipe((str(target.host), int(target.port)))
        try:
            if kind == "ASK":
                return (await pipe.call([_ASKING, command]))[1]
            self._stale.set()
            if self._map is not None:
                await self._map.nodes_manager.move_slot(target)
            return (await pipe.call([command]))[0]
        except RedisUnavailable as error:
            return hiredis.ReplyError(f"UNAVAILABLE {error}")


def _is_redirect(reply: Reply) -> bool:
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith(("MOVED ", "ASK "))
