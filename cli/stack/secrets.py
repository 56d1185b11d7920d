"""The installation's secrets: made once, kept in one file that only its owner reads.

The keys of processes, data keys, and the passwords and keys of the demo data are not kept: they are derived from the
installation's secret (HMAC-SHA-256), so a second start, or `tollway seed`, finds the same ones again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cli.stack import StackError
from cli.stack.layout import write_json
from cli.stack.servers.roles import SUPERUSER, logins
from contract.services import SERVICES
from mesh.rpc.process_tokens import public_key_of

SECRET_BYTES: Final = 32
VERSION: Final = 2
PROCESSES: Final = (*SERVICES, "edge_proxy", "graphql_gateway", "cli")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What the processes of one installation share, and what each of them keeps for itself. All in hex."""

    installation_secret: str = dataclasses.field(repr=False)
    key_pepper: str = dataclasses.field(repr=False)
    signing_key: str = dataclasses.field(repr=False)
    postgres_passwords: Mapping[str, str] = dataclasses.field(repr=False)
    # The one data key that all services of an older installation shared; it still opens what it has sealed.
    data_key: str | None = dataclasses.field(repr=False, default=None)

    def process_key(self, process: str) -> bytes:
        """Return the private key of a process."""
        return self.derive(f"process key of {process}")

    def process_fields(self, process: str) -> dict[str, str]:
        """Return what a process's settings say of keys: its own private one, and everybody's public ones."""
        public = ",".join(f"{name}:{public_key_of(self.process_key(name)).hex()}" for name in PROCESSES)
        return {"process_key": self.process_key(process).hex(), "process_public_keys": public}

    def process_environment(self, process: str) -> dict[str, str]:
        """Return the same as environment variables."""
        return {f"TOLLWAY_{name.upper()}": value for name, value in self.process_fields(process).items()}

    def page_token_key(self, service: str) -> str:
        """Return what a service signs page tokens with, in hex."""
        return self.derive(f"page token key of {service}").hex()

    def data_keys(self, service: str) -> str:
        """Return a service's data keys by version: its own, behind the shared one of an older installation."""
        own = f"2:{self.derive(f'data key of {service}').hex()}"
        return f"1:{self.data_key},{own}" if self.data_key else own

    def redis_password(self) -> str:
        """Return the password of the embedded Redis."""
        return self.derive("redis password").hex()

    def derive(self, purpose: str, byte_count: int = SECRET_BYTES) -> bytes:
        """Return bytes that belong to a purpose: the same for the same installation, unrelated to all others."""
        derived = hmac.digest(bytes.fromhex(self.installation_secret), purpose.encode(), hashlib.sha256)
        return derived[:byte_count]


def load_or_create(path: Path, *, database_exists: bool) -> Secrets:
    """Read the secrets, or make them on the first start.

    Args:
        path: The file.
        database_exists: Whether a database folder is there already, which opens only with its own secrets.

    Raises:
        StackError: when the file cannot be read, or is missing beside an existing database.
    """
    if path.exists():
        return load(path)
    if database_exists:
        raise StackError(f"{path} is missing but its database is there: put it back, or start clean with --reset")
    created = _create()
    write_json(path, {"version": VERSION, **dataclasses.asdict(created)}, mode=0o600)
    return created


def load(path: Path) -> Secrets:
    """Read the secrets.

    Raises:
        StackError: when the file is not there or not what was written.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.pop("version") == 1:
            # Processes proved themselves by this one secret, which all of them held.
            found.pop("process_secret")
        return Secrets(**found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not what was written"
        raise StackError(f"cannot read the secrets in {path} ({reason}): put it back, or start with --reset") from error


def _create() -> Secrets:
    return Secrets(
        installation_secret=secrets.token_hex(SECRET_BYTES),
        key_pepper=secrets.token_hex(SECRET_BYTES),
        signing_key=secrets.token_hex(SECRET_BYTES),
        postgres_passwords={login: secrets.token_urlsafe(24) for login in (SUPERUSER, *logins())},
    )
