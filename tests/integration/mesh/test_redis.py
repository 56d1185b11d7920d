"""The way to Redis on real servers: passwords, TLS, replicas, Sentinels, a cluster of three."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import hiredis
import pytest
import redis
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis.crc import key_slot

from cli.stack.ports import free_ports
from mesh.redis import RedisPipe, RedisUnavailable, redis_pipe
from tests.support.redis_servers import Node, redis_cluster, redis_node, until
from tests.support.redis_versions import SERVERS

DEADLINE_SECONDS = 20
KEYS = [b"{%d}" % number for number in range(200)]


@pytest.fixture(params=sorted(SERVERS))
def program(request: pytest.FixtureRequest) -> str:
    return SERVERS[request.param]


@contextlib.asynccontextmanager
async def piped(url: str, timeout_seconds: float = 0.5) -> AsyncIterator[RedisPipe]:
    pipe = redis_pipe(url, timeout_seconds=timeout_seconds)
    running = asyncio.create_task(pipe.run())
    try:
        yield pipe
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def connected(pipe: RedisPipe) -> RedisPipe:
    await asyncio.wait_for(pipe.connected.wait(), DEADLINE_SECONDS)
    return pipe


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(0.02)


async def refused_to_connect(pipe: RedisPipe) -> None:
    """Waits until an attempt to connect has failed; none may succeed before."""
    with structlog.testing.capture_logs() as lines:
        await eventually(lambda: any(line["event"] == "redis_connect_failed" for line in lines))
    assert not pipe.connected.is_set()


async def answered(pipe: RedisPipe, *command: object, key: bytes = b"k") -> object:
    """Asks until there is an answer that is no error."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            with contextlib.suppress(RedisUnavailable):
                (reply,) = await pipe.call([command], [key])
                if not isinstance(reply, hiredis.ReplyError):
                    return reply
            await asyncio.sleep(0.02)


async def test_the_password_comes_from_the_url(program: str, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with redis_node(program, tmp_path, port, "--requirepass", "s@cret") as node:
        async with piped(f"redis://:s%40cret@127.0.0.1:{port}/2") as pipe:
            await (await connected(pipe)).call([("SET", "k", "v")])
        node.say("SELECT", 2)
        assert node.client.execute_command("GET", "k") == b"v"
        async with piped(f"redis://:wrong@127.0.0.1:{port}/0") as pipe:
            await refused_to_connect(pipe)
            with pytest.raises(RedisUnavailable):
                await pipe.ping()


async def test_a_rediss_url_is_spoken_over_tls_and_strangers_are_not_trusted(program: str, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    certificate, context = own_certificate(tmp_path)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", port)
            async with asyncio.TaskGroup() as both:
                both.create_task(copy(reader, behind_writer))
                both.create_task(copy(behind_reader, writer))

    with redis_node(program, tmp_path, port):
        door = await asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=context)
        address = f"127.0.0.1:{door.sockets[0].getsockname()[1]}"
        async with piped(f"rediss://{address}/0?ssl_ca_certs={certificate}") as pipe:
            assert await (await connected(pipe)).call([("SET", "k", "v"), ("GET", "k")]) == [b"OK", b"v"]
        async with piped(f"rediss://{address}/0") as pipe:
            await refused_to_connect(pipe)
        door.close()


async def test_a_server_that_becomes_a_replica_is_given_up_until_it_is_a_master_again(
    program: str, tmp_path: Path
) -> None:
    master_port, port = free_ports(2)
    with redis_node(program, tmp_path, master_port), redis_node(program, tmp_path, port) as node:
        async with piped(f"redis://127.0.0.1:{port}/0") as pipe:
            await connected(pipe)
            node.say("REPLICAOF", "127.0.0.1", master_port)
            (refused,) = await pipe.call([("SET", "k", "v")])
            assert "READONLY" in str(refused)
            await eventually(lambda: not pipe.connected.is_set())
            node.say("REPLICAOF", "NO", "ONE")
            assert await answered(pipe, "SET", "k", "v") == b"OK"


async def test_a_replica_is_no_place_to_count(program: str, tmp_path: Path) -> None:
    master_port, port = free_ports(2)
    with redis_node(program, tmp_path, master_port), redis_node(program, tmp_path, port) as node:
        node.say("REPLICAOF", "127.0.0.1", master_port)
        until(lambda: node.client.info("replication").get("master_link_status") == "up")
        tried = len(node.client.client_list())
        async with piped(f"redis://127.0.0.1:{port}/0") as pipe:
            await eventually(lambda: int(node.client.info("stats")["total_connections_received"]) > tried + 3)
            assert not pipe.connected.is_set()


async def test_sentinels_lead_to_the_new_master(program: str, tmp_path: Path) -> None:
    first_port, second_port, sentinel_port = free_ports(3)
    with (
        redis_node(program, tmp_path, first_port) as first,
        redis_node(program, tmp_path, second_port) as second,
        running_sentinel(program, tmp_path, sentinel_port, first_port) as sentinel,
    ):
        second.say("REPLICAOF", "127.0.0.1", first_port)
        until(lambda: second.client.info("replication").get("master_link_status") == "up")
        until(lambda: sentinel.client.sentinel_slaves("limits"))
        async with piped(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel_port}/limits") as pipe:
            await (await connected(pipe)).call([("SET", "k", "before")])
            until(lambda: second.client.get("k") == b"before")
            # A replica counts as suitable once the Sentinel has heard from it.
            until(lambda: accepts(sentinel, "SENTINEL", "FAILOVER", "limits"))
            until(lambda: second.client.info("replication")["role"] == "master")
            until(lambda: first.client.info("replication")["role"] == "slave")
            assert await answered(pipe, "SET", "k", "after") == b"OK"
            await eventually(lambda: second.client.get("k") == b"after")


@pytest.fixture
def cluster(program: str, tmp_path: Path) -> Iterator[list[Node]]:
    with redis_cluster(program, tmp_path) as nodes:
        yield nodes


def url_of(cluster: list[Node]) -> str:
    return "redis+cluster://127.0.0.1:1," + ",".join(f"127.0.0.1:{node.port}" for node in cluster)


async def test_commands_reach_the_node_that_has_their_slot_in_one_call(cluster: list[Node]) -> None:
    async with piped(url_of(cluster)) as pipe:
        await (await connected(pipe)).ping()
        written = await pipe.call([("SET", key, key) for key in KEYS], KEYS)
        assert written == [b"OK"] * len(KEYS)
        assert await pipe.call([("GET", key) for key in KEYS], KEYS) == KEYS
        assert all(node.client.dbsize() > 10 for node in cluster)


async def test_a_slot_that_has_moved_or_is_moving_is_followed(cluster: list[Node]) -> None:
    key = KEYS[0]
    slot = key_slot(key)
    owner = next(node for node in cluster if slot_range_holds(node, slot))
    target = next(node for node in cluster if node is not owner)
    async with piped(url_of(cluster)) as pipe:
        await connected(pipe)
        target.say("CLUSTER", "SETSLOT", slot, "IMPORTING", own_id(owner))
        owner.say("CLUSTER", "SETSLOT", slot, "MIGRATING", own_id(target))
        # The key is on neither node, so its owner says ASK.
        assert await pipe.call([("SET", key, "asked")], [key]) == [b"OK"]
        for node in (target, owner, *cluster):
            node.say("CLUSTER", "SETSLOT", slot, "NODE", own_id(target))
        assert await pipe.call([("GET", key)], [key]) == [b"asked"]


async def test_a_node_that_hangs_fails_its_own_keys_alone(cluster: list[Node]) -> None:
    async with piped(url_of(cluster), timeout_seconds=0.2) as pipe:
        await connected(pipe)
        hung = [key for key in KEYS if slot_range_holds(cluster[0], key_slot(key))]
        os.kill(cluster[0].process.pid, signal.SIGSTOP)
        try:
            replies = await pipe.call([("SET", key, "v") for key in KEYS], KEYS)
        finally:
            os.kill(cluster[0].process.pid, signal.SIGCONT)
        failed = [key for key, reply in zip(KEYS, replies, strict=True) if isinstance(reply, hiredis.ReplyError)]
        assert failed == hung
        assert await answered(pipe, "SET", hung[0], "v", key=hung[0]) == b"OK"


async def test_a_cluster_that_is_not_there_fails_at_once_and_is_found_later(program: str, tmp_path: Path) -> None:
    ports = free_ports(1)
    async with piped(f"redis+cluster://127.0.0.1:{ports[0]}") as pipe:
        with pytest.raises(RedisUnavailable):
            await pipe.call([("PING",)], [b"k"])
        with redis_cluster(program, tmp_path) as nodes:
            async with piped(url_of(nodes)) as other:
                assert await answered(other, "SET", "k", "v") == b"OK"


def slot_range_holds(node: Node, slot: int) -> bool:
    found = node.say("CLUSTER", "SLOTS")
    assert isinstance(found, list)
    return any(first <= slot <= last and primary[1] == node.port for first, last, primary, *_ in found)


def accepts(node: Node, *words: object) -> bool:
    try:
        node.say(*words)
    except redis.ResponseError:
        return False
    return True


def own_id(node: Node) -> str:
    told = node.say("CLUSTER", "MYID")
    return told.decode() if isinstance(told, bytes) else str(told)


@contextlib.contextmanager
def running_sentinel(program: str, folder: Path, port: int, master_port: int) -> Iterator[Node]:
    """Starts a Sentinel that decides by itself."""
    configuration = folder / "sentinel.conf"
    configuration.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor limits 127.0.0.1 {master_port} 1\n"
        "sentinel down-after-milliseconds limits 60000\n"
    )
    with redis_node(program, folder, port, sentinel=configuration) as node:
        yield node


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


def own_certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Makes a certificate for 127.0.0.1 and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "redis.test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, key_path = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key_path)
    return certificate, context
