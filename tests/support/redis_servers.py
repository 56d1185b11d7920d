"""Several Redis servers at once: replicas, Sentinels, clusters. They end with the test."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import redis

from cli.stack.ports import free_ports, is_free
from cli.stack.process import die_with_parent

DEADLINE_SECONDS = 20
BUS_PORT_OFFSET = 10_000
SLOTS = 16_384


@dataclass
class Node:
    """One server and a client of its own."""

    process: subprocess.Popen[bytes]
    port: int
    client: redis.Redis

    def say(self, *words: object) -> object:
        return self.client.execute_command(*words)


@contextmanager
def redis_node(program: str, folder: Path, port: int, *options: str, sentinel: Path | None = None) -> Iterator[Node]:
    """Starts a server with options, or a Sentinel with its file, and stops it at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder), *options]
    if sentinel is not None:
        command = [program, str(sentinel), "--sentinel"]
    with (folder / f"{port}.log").open("wb") as log_file:
        process = subprocess.Popen(
            command,
            stdout=log_file,
            stderr=log_file,
            preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 only the main thread forks
        )
    password = options[options.index("--requirepass") + 1] if "--requirepass" in options else None
    client = redis.Redis(port=port, password=password, socket_timeout=5)
    try:
        until(lambda: answers(client))
        yield Node(process=process, port=port, client=client)
    finally:
        client.close()
        process.kill()
        process.wait()


@contextmanager
def redis_cluster(program: str, folder: Path, *options: str) -> Iterator[list[Node]]:
    """Starts three masters that share the slots."""
    ports = [port for port in free_ports(8) if is_free(port + BUS_PORT_OFFSET)][:3]
    alike = ["--cluster-enabled", "yes", "--cluster-node-timeout", "60000", "--cluster-require-full-coverage", "no"]

    def started(left: list[int]) -> Iterator[list[Node]]:
        if not left:
            yield []
            return
        own = [*alike, "--cluster-config-file", f"{left[0]}.conf", *options]
        with redis_node(program, folder, left[0], *own) as node:
            for others in started(left[1:]):
                yield [node, *others]

    for nodes in started(ports):
        for number, node in enumerate(nodes):
            node.say("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.say("CLUSTER", "ADDSLOTS", *range(number * SLOTS // 3, (number + 1) * SLOTS // 3))
        for node in nodes[1:]:
            nodes[0].say("CLUSTER", "MEET", "127.0.0.1", node.port)
        until(partial(is_whole, nodes))
        yield nodes


def is_whole(nodes: list[Node]) -> bool:
    """Tells whether every node knows every other one and all slots."""
    told = [str(node.say("CLUSTER", "INFO")) for node in nodes]
    wanted = ("cluster_state:ok", "cluster_slots_ok:16384", "cluster_known_nodes:3")
    return all(word in each for each in told for word in wanted)


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
