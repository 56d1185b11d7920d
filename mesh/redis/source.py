"""Which server to talk to, and how a connection to it is opened: by redis-py, with its TLS, credentials and Sentinel.

| URL | what it names |
|---|---|
| `redis://`, `rediss://`, `unix://` | one server, as redis-py reads them, password, database and TLS options included |
| `redis+sentinel://user:password@host:port,host:port/service?db=0` | the master that the Sentinels name |
| `redis+cluster://user:password@host:port,host:port` | a cluster, found through these nodes (`cluster.py`) |

`rediss+sentinel` and `rediss+cluster` are the same with TLS. Sentinels that want a password are told it by
`sentinel_password`. Retries are off everywhere: redis-py's own client tries ten times by default, which turned one hung
server into a stall of twenty seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

CONNECT_TIMEOUT_SECONDS: Final = 1.0
PORT_DEFAULT: Final = 6379
SENTINEL_PORT_DEFAULT: Final = 26379
_RESP_VERSION: Final = 2


class Source(Protocol):
    """Knows which server to connect to now."""

    async def connection(self) -> AbstractConnection:
        """Return a connection to it, not yet opened.

        Raises:
            RedisError: Nobody can say which server it is.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisUrl:
    """A URL, taken apart.

    Args:
        kind: "" for one server, "sentinel" or "cluster".
        hosts: Whom to ask.
        service: The master's name among the Sentinels.
        sentinel_password: What Sentinels want to hear.
        options: What redis-py's connections are made with, class included.
    """

    kind: str
    hosts: tuple[tuple[str, int], ...]
    service: str
    sentinel_password: str | None
    options: Mapping[str, Any]


def read_url(url: str) -> RedisUrl:
    """Take a URL apart.

    Raises:
        ValueError: It is of no known form.
    """
    scheme, _, rest = url.partition("://")
    plain, _, kind = scheme.partition("+")
    if kind not in {"", "sentinel", "cluster"} or (kind and plain not in {"redis", "rediss"}):
        raise ValueError("a Redis URL begins with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://")
    if not kind:
        options = dict(parse_url(url))
        host = str(options.get("host", "localhost"))
        port = int(cast(int, options.get("port", PORT_DEFAULT)))
        return RedisUrl(kind="", hosts=((host, port),), service="", sentinel_password=None, options=_complete(options))
    place, question, query = rest.partition("?")
    credentials, at, listed = place.rpartition("@")
    listed, _, service = listed.partition("/")
    usual = SENTINEL_PORT_DEFAULT if kind == "sentinel" else PORT_DEFAULT
    hosts = tuple(_host_port(each, usual) for each in listed.split(",") if each)
    if not hosts or (kind == "sentinel" and not service):
        raise ValueError("it names no host" if not hosts else "it names no service: redis+sentinel://host:port/service")
    options = dict(parse_url(f"{plain}://{credentials}{at}{hosts[0][0]}:{hosts[0][1]}{question}{query}"))
    sentinel_password = options.pop("sentinel_password", None)
    return RedisUrl(
        kind=kind,
        hosts=hosts,
        service=service,
        sentinel_password=None if sentinel_password is None else str(sentinel_password),
        options=_complete(options),
    )


class UrlSource:
    """One server.

    Args:
        url: Where it is.
    """

    def __init__(self, url: RedisUrl) -> None:
        self._options = url.options

    async def connection(self) -> AbstractConnection:
        """Open a connection to the one server."""
        return open_to(self._options)


class NodeSource:
    """A node of a cluster.

    Args:
        url: The cluster.
        host: The node.
        port: Its port.
    """

    def __init__(self, url: RedisUrl, host: str, port: int) -> None:
        self._options = {**url.options, "host": host, "port": port}

    async def connection(self) -> AbstractConnection:
        """Open a connection to this node, whatever slots it has."""
        return open_to(self._options)


class SentinelSource:
    """The master that Sentinels name; asked again for every connection, so a failover is followed.

    Args:
        url: The Sentinels and the service.
    """

    def __init__(self, url: RedisUrl) -> None:
        self._options = url.options
        self._service = url.service
        self._sentinel = Sentinel(  # type: ignore[no-untyped-call]
            list(url.hosts),
            sentinel_kwargs={
                "password": url.sentinel_password,
                "socket_timeout": CONNECT_TIMEOUT_SECONDS,
                "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
                "retry": Retry(NoBackoff(), 0),
            },
        )

    async def connection(self) -> AbstractConnection:
        """Ask for the master and return a connection to it."""
        host, port = await self._sentinel.discover_master(self._service)
        return open_to({**self._options, "host": host, "port": port})


def source_of(url: RedisUrl) -> Source:
    """Return the source that a URL of one server or of Sentinels names."""
    return SentinelSource(url) if url.kind == "sentinel" else UrlSource(url)


def open_to(options: Mapping[str, Any]) -> AbstractConnection:
    """Make a connection of redis-py's; it is not opened yet."""
    given = dict(options)
    connection_class: type[AbstractConnection] = given.pop("connection_class", Connection)
    return connection_class(**given)


def _complete(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **options,
        "socket_timeout": CONNECT_TIMEOUT_SECONDS,
        "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "driver_info": None,
        "protocol": _RESP_VERSION,
    }


def _host_port(text: str, port: int) -> tuple[str, int]:
    host, colon, given = text.rpartition(":")
    return (host.strip("[]"), int(given)) if colon and given.isdecimal() else (text.strip("[]"), port)
