"""Who is signed in where: profiles in one file that only its owner reads.

The file is `credentials.json` in `$XDG_CONFIG_HOME/tollway` (`~/.config/tollway`), or what TOLLWAY_CREDENTIALS_FILE
names. It has mode 0600, and is refused when others may read it: what lies in it signs in without a password. It is
replaced atomically, so that a reader sees the old one or the new one, and changed under a lock of its own, so that two
commands at once neither lose each other's change nor use one refresh token twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cli.remote.failures import CommandFailed
from cli.stack.layout import write_json

VERSION: Final = 1
DEFAULT: Final = "default"
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One sign-in. A service account has a token alone; a person's session has a refresh token as well."""

    address: str
    token: str = dataclasses.field(repr=False)
    account: str = ""
    organization_id: str = ""
    expire_time: datetime | None = None
    refresh_token: str = dataclasses.field(default="", repr=False)
    refresh_expire_time: datetime | None = None
    addresses: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Of the services that are not at `address`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Profiles:
    """All sign-ins, and which one is meant where none is named."""

    current: str = DEFAULT
    by_name: Mapping[str, Profile] = dataclasses.field(default_factory=dict)

    def with_profile(self, name: str, profile: Profile) -> Profiles:
        """Return the same with a profile, which is meant from now on."""
        return Profiles(current=name, by_name={**self.by_name, name: profile})

    def without(self, name: str) -> Profiles:
        """Return the same without a profile."""
        return dataclasses.replace(self, by_name={key: each for key, each in self.by_name.items() if key != name})


class CredentialsFile:
    """The file.

    Args:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> CredentialsFile:
        """Return the file that the environment means (XDG Base Directory Specification 0.8: absolute paths only)."""
        given = environment.get("TOLLWAY_CREDENTIALS_FILE")
        if given:
            return cls(Path(given))
        config = environment.get("XDG_CONFIG_HOME", "")
        folder = Path(config) if config.startswith("/") else Path.home() / ".config"
        return cls(folder / "tollway" / "credentials.json")

    def read(self) -> Profiles:
        """Read all profiles; without a file there are none.

        Raises:
            CommandFailed: Others may read the file, or it is not what was written.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return Profiles()
        with os.fdopen(descriptor, encoding="utf-8") as file:
            self._refuse_open_to_others(os.fstat(file.fileno()))
            try:
                return _from_json(json.load(file))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise CommandFailed(f"{self.path} is not what was written: delete it and sign in again") from error

    def _refuse_open_to_others(self, found: os.stat_result) -> None:
        if found.st_uid != os.geteuid():
            raise CommandFailed(f"{self.path} belongs to somebody else: it is not read")
        if found.st_mode & OTHERS:
            raise CommandFailed(f"others may read {self.path}, and it signs in without a password: chmod 600 it")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands from changing the file meanwhile."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def write(self, profiles: Profiles) -> None:
        """Replace the file; hold the lock."""
        write_json(self.path, _to_json(profiles), mode=0o600)


def _to_json(profiles: Profiles) -> dict[str, Any]:
    found = {name: dataclasses.asdict(profile) for name, profile in profiles.by_name.items()}
    for values in found.values():
        for name in ("expire_time", "refresh_expire_time"):
            values[name] = values[name].isoformat() if values[name] else None
    return {"version": VERSION, "current": profiles.current, "profiles": found}


def _from_json(found: Any) -> Profiles:
    if found["version"] != VERSION:
        raise ValueError(found["version"])
    return Profiles(
        current=str(found["current"]), by_name={name: _profile(values) for name, values in found["profiles"].items()}
    )


def _profile(values: dict[str, Any]) -> Profile:
    times = {name: _instant(values[name]) for name in ("expire_time", "refresh_expire_time")}
    return Profile(**{**values, **times})


def _instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None
