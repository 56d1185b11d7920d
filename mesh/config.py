"""Configuration comes from the environment, is checked once at the start and never changes.

Every process has one frozen settings class in its `config.py`. A wrong environment is told completely (one line per
variable: its name, what is wrong, never its value) and ends the process with status 2.
"""

from __future__ import annotations

import sys
from typing import Annotated, ClassVar, Literal, TypeVar, cast

from pydantic import AfterValidator, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from contract.services import AUTH, BILLING, METERING, NOTIFICATION, RATELIMIT

Settings = TypeVar("Settings", bound="ProcessSettings")

ENV_PREFIX = "TOLLWAY_"
KEY_BYTES = 32


class ProcessSettings(BaseSettings):
    """What every process needs to know."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="ignore")

    environment: Literal["local", "production"] = "local"
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    log_format: Literal["json", "console"] = "json"
    process_secret: SecretStr
    auth_address: str = AUTH.address
    ratelimit_address: str = RATELIMIT.address
    metering_address: str = METERING.address
    billing_address: str = BILLING.address
    notification_address: str = NOTIFICATION.address
    otlp_endpoint: str | None = None


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
        key = bytes.fromhex(value)
        if len(key) != KEY_BYTES or int(version) in keys:
            raise ValueError(f"key {version} must be {KEY_BYTES} bytes in hex and stand there once")
        keys[int(version)] = key
    return keys


def _check_versioned_keys(value: SecretStr) -> SecretStr:
    versioned_keys(value.get_secret_value())
    return value


VersionedKeys = Annotated[SecretStr, AfterValidator(_check_versioned_keys)]
"""The type of a setting that `versioned_keys` can read."""
