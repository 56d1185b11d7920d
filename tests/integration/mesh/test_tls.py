"""TLS and mTLS between processes, with certificates made for the test."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import ipaddress
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tollway.auth.v1 import auth_service_pb2 as auth
from tollway.auth.v1 import auth_service_pb2_grpc

from contract.services import AUTH
from mesh.clock import SystemClock
from mesh.config import ProcessSettings
from mesh.ids import RandomIds
from mesh.rpc.client import Clients
from mesh.rpc.server import Server
from mesh.rpc.tls import channel_credentials, server_credentials
from tests.support.processes import process_fields
from tests.support.serving import test_verifier

DAY = dt.timedelta(days=1)


@dataclasses.dataclass(frozen=True)
class Authority:
    """A certificate authority of the test."""

    key: Any
    certificate: x509.Certificate

    @classmethod
    def make(cls, name: str) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return cls(key, sign(subject, subject, key.public_key(), key, [x509.BasicConstraints(ca=True, path_length=0)]))

    def issue(self, folder: Path, *names: x509.GeneralName) -> dict[str, Path]:
        """Writes key, certificate and this authority into a folder; returns the settings that name them."""
        folder.mkdir(exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "process")])
        alternative = [x509.SubjectAlternativeName(names)] if names else []
        certificate = sign(subject, self.certificate.subject, key.public_key(), self.key, alternative)
        pem = serialization.Encoding.PEM
        (folder / "key").write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        (folder / "certificate").write_bytes(certificate.public_bytes(pem))
        (folder / "ca").write_bytes(self.certificate.public_bytes(pem))
        return {f"tls_{name}": folder / name for name in ("key", "certificate", "ca")}


def sign(subject: Any, issuer: Any, public_key: Any, key: Any, extensions: list[Any]) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public_key)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - DAY).not_valid_after(now + DAY)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256())


HERE = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
ELSEWHERE = x509.DNSName("billing.example")


class Handler(auth_service_pb2_grpc.AuthServiceServicer):
    async def GetJwks(self, request, context):
        return auth.GetJwksResponse(jwks_json=str(context.auth_context().get("x509_common_name", [b""])[0], "utf-8"))


@contextlib.asynccontextmanager
async def serving(files: dict[str, Path], **fields: Any) -> AsyncIterator[str]:
    settings = ProcessSettings(**process_fields("auth"), **files, **fields)
    server = await Server.start(
        name="auth",
        listen="127.0.0.1:0",
        services=[(AUTH.descriptor, auth_service_pb2_grpc.add_AuthServiceServicer_to_server, Handler())],
        verifier=test_verifier("auth"),
        clock=SystemClock(),
        ids=RandomIds(),
        credentials=server_credentials(settings),
    )
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.stop(0)


async def ask(address: str, files: dict[str, Path]) -> str:
    """Calls as the edge does; returns the name in the certificate that the server saw."""
    clients = Clients(
        ProcessSettings(**process_fields("edge_proxy"), **files, auth_address=address), process="edge_proxy"
    )
    try:
        return (await clients.auth.GetJwks(auth.GetJwksRequest(), timeout=10)).jwks_json
    finally:
        await clients.close()


async def refused(address: str, files: dict[str, Path]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await ask(address, files)
    assert told.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.make("ours")


async def test_processes_of_one_authority_understand_each_other(authority: Authority, tmp_path: Path) -> None:
    async with serving(authority.issue(tmp_path / "auth", HERE)) as address:
        assert await ask(address, authority.issue(tmp_path / "edge")) == "process"


async def test_a_caller_without_tls_or_with_anothers_certificate_is_refused(
    authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority.make("theirs")
    theirs = stranger.issue(tmp_path / "stranger")
    # It believes our authority, so that it is the server who refuses.
    believing = {**theirs, "tls_ca": authority.issue(tmp_path / "edge")["tls_ca"]}
    async with serving(authority.issue(tmp_path / "auth", HERE)) as address:
        await refused(address, {})
        await refused(address, believing)
        bare = grpc.ssl_channel_credentials(believing["tls_ca"].read_bytes())
        async with grpc.aio.secure_channel(address, bare) as channel:
            stub = auth_service_pb2_grpc.AuthServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.GetJwks(auth.GetJwksRequest(), timeout=10)


async def test_a_server_under_a_wrong_name_or_authority_is_not_believed(authority: Authority, tmp_path: Path) -> None:
    ours = authority.issue(tmp_path / "edge")
    async with serving(authority.issue(tmp_path / "billing", ELSEWHERE)) as address:
        await refused(address, ours)
    stranger = Authority.make("theirs")
    imposter = {**stranger.issue(tmp_path / "imposter", HERE), "tls_ca": ours["tls_ca"]}
    async with serving(imposter) as address:
        await refused(address, ours)


async def test_callers_without_certificate_are_let_in_where_the_operator_says_so(
    authority: Authority, tmp_path: Path
) -> None:
    files = authority.issue(tmp_path / "auth", HERE)
    async with serving(files, tls_clients="any") as address:
        bare = grpc.ssl_channel_credentials(files["tls_ca"].read_bytes())
        async with grpc.aio.secure_channel(address, bare) as channel:
            answer = await auth_service_pb2_grpc.AuthServiceStub(channel).GetJwks(auth.GetJwksRequest(), timeout=10)
        assert answer.jwks_json == ""


async def test_a_server_takes_renewed_files_and_keeps_the_old_ones_until_they_fit(
    authority: Authority, tmp_path: Path
) -> None:
    files, replaced = authority.issue(tmp_path / "auth", HERE), Authority.make("new")
    old, new = authority.issue(tmp_path / "edge"), replaced.issue(tmp_path / "new-edge")
    async with serving(files) as address:
        await ask(address, old)
        renewed = replaced.issue(tmp_path / "renewed", HERE)
        files["tls_key"].write_bytes(renewed["tls_key"].read_bytes())
        await ask(address, old)
        for name in ("tls_certificate", "tls_ca"):
            files[name].write_bytes(renewed[name].read_bytes())
        await ask(address, new)
        await refused(address, old)


async def test_the_command_line_asks_over_tls(authority: Authority, tmp_path: Path) -> None:
    mine = authority.issue(tmp_path / "operator")
    variables = {f"TOLLWAY_{name.upper()}": str(path) for name, path in mine.items()}
    where = ("--token", "x", "--organization", str(UUID(int=0)))
    async with serving(authority.issue(tmp_path / "metering", HERE)) as address:
        for environment, answer in ((variables, "UNIMPLEMENTED"), ({}, "UNAVAILABLE")):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "cli", "events", "dead-letters", "--address", address, *where, "list"),
                env={**os.environ, **environment},
                stderr=asyncio.subprocess.PIPE,
            )
            _, errors = await process.communicate()
            assert f"metering at {address} answers {answer}" in errors.decode()


def test_files_that_do_not_fit_are_told_at_the_start(authority: Authority, tmp_path: Path) -> None:
    one, other = authority.issue(tmp_path / "1", HERE), authority.issue(tmp_path / "2", HERE)
    settings = ProcessSettings(**process_fields("auth"), **{**one, "tls_key": other["tls_key"]})
    for read in (server_credentials, channel_credentials):
        with pytest.raises(OSError, match="do not fit"):
            read(settings)
    with pytest.raises(ValueError, match="missing or wrong: TOLLWAY_TLS_KEY"):
        ProcessSettings(**process_fields("auth"), tls_certificate=one["tls_certificate"], tls_ca=one["tls_ca"])
