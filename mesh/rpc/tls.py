"""TLS between processes: what `TOLLWAY_TLS_*` says, as gRPC's credentials.

Every process has one certificate, for serving and for calling, and one list of authorities that it believes. A server
asks its callers for a certificate of those authorities (mTLS) unless `TOLLWAY_TLS_CLIENTS=any`; a caller believes a
server whose certificate names the host that was dialled. A certificate opens the line and no more: which process calls
is told by its token (`process_tokens`), with TLS and without.

**Renewal.** A server looks at its files at every handshake and takes what is new; files that do not belong together
(one of them is written already, the other not yet) leave the old ones in force. A caller reads its files when it opens
a channel, that is at its start, so a process is restarted before the certificate that it started with ends.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

import grpc
import structlog

from mesh.config import TlsFiles, TlsSettings

NANOSECONDS_UNKNOWN: Final = -1

log = structlog.get_logger()


def channel_credentials(settings: TlsSettings) -> grpc.ChannelCredentials | None:
    """Return what channels to services are opened with; None where TLS is off.

    Raises:
        OSError: A file cannot be read, or the files do not belong together.
    """
    files = settings.tls_files
    if files is None:
        return None
    _check(files)
    return grpc.ssl_channel_credentials(
        root_certificates=files.ca.read_bytes(),
        private_key=files.key.read_bytes(),
        certificate_chain=files.certificate.read_bytes(),
    )


def server_credentials(settings: TlsSettings) -> grpc.ServerCredentials | None:
    """Return what a server listens with; None where TLS is off.

    Raises:
        OSError: A file cannot be read, or the files do not belong together.
    """
    files = settings.tls_files
    if files is None:
        return None
    renewed = _RenewedFiles(files)
    return grpc.dynamic_ssl_server_credentials(
        renewed.read(),
        renewed.read_if_changed,  # type: ignore[arg-type]  # gRPC takes None for no change; its stubs do not know
        require_client_authentication=settings.tls_clients == "certificate",
    )


class _RenewedFiles:
    """Certificate files that may be replaced while a server runs. gRPC asks at every handshake, in its own threads."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._read_at: tuple[int, ...] = ()

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Read the files.

        Raises:
            OSError: One cannot be read, or they do not belong together.
        """
        changed_at = self._changed_at()
        _check(self._files)
        configuration = grpc.ssl_server_certificate_configuration(
            [(self._files.key.read_bytes(), self._files.certificate.read_bytes())],
            root_certificates=self._files.ca.read_bytes(),
        )
        self._read_at = changed_at
        return configuration

    def read_if_changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Read the files if they are new; None where the old ones stay in force."""
        try:
            return self.read() if self._changed_at() != self._read_at else None
        except OSError as error:
            log.warning("tls_files_not_renewed", detail=str(error))
            return None

    def _changed_at(self) -> tuple[int, ...]:
        return tuple(_changed_at(path) for path in (self._files.certificate, self._files.key, self._files.ca))


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return NANOSECONDS_UNKNOWN


def _check(files: TlsFiles) -> None:
    """Have OpenSSL compare key and certificate, which gRPC does in silence and in the middle of a handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(files.certificate, files.key)
        context.load_verify_locations(files.ca)
    except ssl.SSLError as error:
        raise OSError(f"TOLLWAY_TLS_*: key, certificate and authorities do not fit: {error.reason}") from error
