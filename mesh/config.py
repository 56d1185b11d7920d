"""Configuration comes from the environment, is checked once at the start and never changes.

Every process has one frozen settings class in its `config.py`. A wrong environment is told completely (one line per
variable: its name, what is wrong, never its value) and ends the process with status 2.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, TypeVar, cast

from pydantic import AfterValidator, Field, FilePath, SecretStr, ValidationError, ValidationInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from contract.services import AUTH, BILLING, METERING, NOTIFICATION, RATELIMIT
from mesh.rpc.process_tokens import ProcessKeys

Settings = TypeVar("Settings", bound="TlsSettings")

ENV_PREFIX = "TOLLWAY_"
KEY_BYTES: Final = 32
DIFFERENT_BYTES_MIN: Final = 8
LOCAL: Final = "local"
TLS_FIELDS: Final = ("tls_certificate", "tls_key", "tls_ca")


def hex_key(text: str) -> bytes:
    """Read a key of `KEY_BYTES` bytes in hex.

    Raises:
        ValueError: It is something else.
    """
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(f"must be {KEY_BYTES} bytes in hex")
    return key


def versioned_keys(text: str) -> dict[int, bytes]:
    """Read keys of the form `1:<64 hex>,2:<64 hex>`; the highest version is the one for new work.

    Raises:
        ValueError: A part has another form, or a version comes twice.
    """
    keys: dict[int, bytes] = {}
    for part in text.split(","):
        version, separator, value = part.strip().partition(":")
        if not separator or not version.isdecimal():
            raise ValueError("keys have the form version:hex, separated by commas")
        if int(version) in keys:
            raise ValueError(f"version {version} comes twice")
        keys[int(version)] = hex_key(value)
    return keys


def named_keys(text: str) -> list[tuple[str, bytes]]:
    """Read keys of the form `auth:<64 hex>,edge_proxy:<64 hex>`; a name may come several times.

    Raises:
        ValueError: A part has another form.
    """
    keys = []
    for part in text.split(","):
        name, separator, value = part.strip().partition(":")
        if not separator or not name:
            raise ValueError("keys have the form name:hex, separated by commas")
        keys.append((name, hex_key(value)))
    return keys


def _refuse_weak(key: bytes, info: ValidationInfo) -> None:
    """Refuse what nobody draws at random: few different bytes, or few different steps from one byte to the next.

    32 random bytes have fewer than 8 different ones once in 10^30 years.
    """
    steps = {(after - before) % 256 for before, after in pairwise(key)}
    if info.data.get("environment") != LOCAL and min(len(set(key)), len(steps)) < DIFFERENT_BYTES_MIN:
        raise ValueError("is a sample, not a secret: draw 32 random bytes (openssl rand -hex 32)")


def _check_hex_key(value: SecretStr, info: ValidationInfo) -> SecretStr:
    _refuse_weak(hex_key(value.get_secret_value()), info)
    return value


def _check_versioned_keys(value: SecretStr, info: ValidationInfo) -> SecretStr:
    for key in versioned_keys(value.get_secret_value()).values():
        _refuse_weak(key, info)
    return value


def _check_named_keys(value: str, info: ValidationInfo) -> str:
    named = named_keys(value)
    ProcessKeys(named)
    for _, public_key in named:
        # Not every 32 bytes are a point of the curve that only one private key belongs to: for zeros, anybody can sign.
        _refuse_weak(public_key, info)
    return value


def _check_tls(value: str, info: ValidationInfo) -> str:
    missing = [name for name in TLS_FIELDS if info.data.get(name) is None]
    if missing and len(missing) < len(TLS_FIELDS):
        names = ", ".join(f"{ENV_PREFIX}{name.upper()}" for name in missing)
        raise ValueError(f"TLS needs its three files together; missing or wrong: {names}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Where a process's certificate, its key and the authorities that it believes are, in PEM."""

    certificate: Path
    key: Path
    ca: Path


HexKey = Annotated[SecretStr, AfterValidator(_check_hex_key)]
"""The type of a setting that `hex_key` can read."""
VersionedKeys = Annotated[SecretStr, AfterValidator(_check_versioned_keys)]
"""The type of a setting that `versioned_keys` can read."""


class TlsSettings(BaseSettings):
    """What TLS between processes needs, for whoever only calls."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="ignore")

    tls_certificate: FilePath | None = None
    tls_key: FilePath | None = None
    tls_ca: FilePath | None = None
    tls_clients: Annotated[Literal["certificate", "any"], AfterValidator(_check_tls)] = Field(
        default="certificate", validate_default=True
    )

    @property
    def tls_files(self) -> TlsFiles | None:
        """Return the files of TLS; None where it is off."""
        if self.tls_certificate is None or self.tls_key is None or self.tls_ca is None:
            return None
        return TlsFiles(certificate=self.tls_certificate, key=self.tls_key, ca=self.tls_ca)


class ProcessSettings(TlsSettings):
    """What every process needs to know."""

    environment: Literal["local", "production"] = "local"
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    log_format: Literal["json", "console"] = "json"
    process_key: HexKey
    process_public_keys: Annotated[str, AfterValidator(_check_named_keys)]
    auth_address: str = AUTH.address
    ratelimit_address: str = RATELIMIT.address
    metering_address: str = METERING.address
    billing_address: str = BILLING.address
    notification_address: str = NOTIFICATION.address
    otlp_endpoint: str | None = None

    @property
    def process_seed(self) -> bytes:
        """Return this process's private key."""
        return hex_key(self.process_key.get_secret_value())

    @property
    def process_keys(self) -> ProcessKeys:
        """Return the public keys of all processes."""
        return ProcessKeys(named_keys(self.process_public_keys))


class ServiceSettings(ProcessSettings):
    """What every service needs to know besides. The variables carry the service's name, for example `TOLLWAY_AUTH_DSN`.

    A derived class names its service and has the fields `<service>_listen`, `<service>_metrics_listen`,
    `<service>_dsn`, `<service>_system_dsn` and, where queries may go to a replica, `<service>_read_dsn`.
    """

    service: ClassVar[str]

    @property
    def listen(self) -> str:
        """Return where the service answers RPCs."""
        return str(getattr(self, f"{self.service}_listen"))

    @property
    def metrics_listen(self) -> str:
        """Return where the service answers for its health and metrics."""
        return str(getattr(self, f"{self.service}_metrics_listen"))

    @property
    def tenant_dsn(self) -> SecretStr:
        """Return the data source name of the tenant role."""
        return cast(SecretStr, getattr(self, f"{self.service}_dsn"))

    @property
    def system_dsn(self) -> SecretStr:
        """Return the data source name of the system role."""
        return cast(SecretStr, getattr(self, f"{self.service}_system_dsn"))

    @property
    def read_dsn(self) -> SecretStr | None:
        """Return the data source name of a replica, if there is one."""
        return cast("SecretStr | None", getattr(self, f"{self.service}_read_dsn", None))


def load(settings_class: type[Settings]) -> Settings:
    """Read settings from the environment, or say on stderr what is wrong with it and exit with status 2."""
    try:
        return settings_class()
    except ValidationError as error:
        for problem in error.errors():
            name = ENV_PREFIX + "_".join(str(part) for part in problem["loc"]).upper()
            print(f"{name}: {problem['msg']}", file=sys.stderr)  # noqa: T201 - logging is not configured yet
        raise SystemExit(2) from None


def host_port(address: str) -> tuple[str, int]:
    """Split `host:port`.

    Raises:
        ValueError: It is not of that form.
    """
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{address!r} is not host:port")
    return host.strip("[]"), int(port)
