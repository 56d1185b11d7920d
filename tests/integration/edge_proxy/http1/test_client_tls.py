"""TLS towards an origin: who ends an answer by closing must say so, or somebody else may have cut it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import socket
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge_proxy.http1.client.connection import UpstreamFailed
from edge_proxy.http1.client.origin import parse_origin
from edge_proxy.http1.client.pool import Origin, OriginLimits, Sweep

LIMITS = OriginLimits(connections_max=4, keep_alive_connections=4, keep_alive_idle_seconds=5)


@pytest.fixture
def certificate(tmp_path):
    """Write a certificate for localhost and its key into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "localhost.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


def serve_once(listener: socket.socket, certificate, *, says_goodbye: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    accepted, _ = listener.accept()
    connection = context.wrap_socket(accepted, server_side=True)
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nhello")
    if says_goodbye:
        with contextlib.suppress(OSError):
            connection.unwrap()
        connection.close()
    else:
        # FIN, as anybody on the way can send it, and no close_notify.
        bare = socket.socket(fileno=connection.detach())
        bare.shutdown(socket.SHUT_WR)
        bare.close()


async def ask(certificate, *, says_goodbye: bool) -> bytes:
    sweep = Sweep()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(
            target=serve_once, args=(listener, certificate), kwargs={"says_goodbye": says_goodbye}, daemon=True
        )
        server.start()
        address = parse_origin(f"https://localhost:{listener.getsockname()[1]}")
        origin = Origin(address, LIMITS, sweep, ssl.create_default_context(cafile=str(certificate)))
        connection = await origin.open(10)
        try:
            async with asyncio.timeout(60):
                connection.begin(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", head_request=False)
                await connection.head()
                body = b""
                while not connection.is_complete:
                    body += await connection.read()
                return body + connection.take()
        finally:
            origin.release(connection)
            sweep.close()


async def test_an_answer_that_ends_with_a_close_notify_is_whole(certificate):
    assert await ask(certificate, says_goodbye=True) == b"hello"


async def test_an_answer_that_ends_without_a_close_notify_is_cut(certificate):
    with pytest.raises(UpstreamFailed):
        await ask(certificate, says_goodbye=False)


async def test_an_origin_that_nobody_vouches_for_is_not_spoken_to(certificate):
    sweep = Sweep()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def shake_hands():
            with contextlib.suppress(OSError):
                serve_once(listener, certificate, says_goodbye=True)

        threading.Thread(target=shake_hands, daemon=True).start()
        address = parse_origin(f"https://localhost:{listener.getsockname()[1]}")
        origin = Origin(address, LIMITS, sweep, ssl.create_default_context())
        with pytest.raises(UpstreamFailed, match="certificate verify failed"):
            await origin.open(10)
    sweep.close()
