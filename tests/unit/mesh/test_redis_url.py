from __future__ import annotations

import pytest
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from mesh.redis.source import open_to, read_url


def test_one_server_is_read_as_redis_py_reads_it() -> None:
    url = read_url("rediss://app:s%40cret@cache.test:6390/3?ssl_ca_certs=/ca.pem")
    connection = open_to(url.options)
    assert isinstance(connection, SSLConnection)
    assert (connection.host, connection.port, connection.db) == ("cache.test", 6390, 3)
    assert (connection.username, connection.password, connection.ca_certs) == ("app", "s@cret", "/ca.pem")
    assert isinstance(open_to(read_url("unix:///run/redis.sock").options), UnixDomainSocketConnection)
    assert type(open_to(read_url("redis://h").options)) is Connection


def test_retries_are_off_and_waits_are_short() -> None:
    connection = open_to(read_url("redis://h").options)
    assert connection.retry.get_retries() == 0
    assert connection.socket_connect_timeout == connection.socket_timeout == 1.0


def test_sentinels_and_clusters_are_lists_of_hosts() -> None:
    sentinel = read_url("redis+sentinel://app:pw@one.test:1,two.test,[::1]:3/limits?db=2&sentinel_password=hush")
    assert (sentinel.kind, sentinel.service, sentinel.sentinel_password) == ("sentinel", "limits", "hush")
    assert sentinel.hosts == (("one.test", 1), ("two.test", 26379), ("::1", 3))
    assert (sentinel.options["password"], sentinel.options["db"]) == ("pw", 2)
    cluster = read_url("rediss+cluster://one.test:7000,two.test")
    assert (cluster.kind, cluster.hosts) == ("cluster", (("one.test", 7000), ("two.test", 6379)))
    assert cluster.options["connection_class"] is SSLConnection


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "redis+pool://h",
        "unix+cluster:///run/redis.sock",
        "redis+sentinel://h:1",
        "redis+cluster://",
        "redis+cluster:///0",
    ],
)
def test_a_url_of_another_form_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"Redis URL|it names no") as caught:
        read_url(url.replace("://", "://user:hush@"))
    assert "hush" not in str(caught.value)
