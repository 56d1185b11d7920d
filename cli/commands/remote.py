"""What commands that talk to a running Tollway have in common: their options, and how they end."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource
from google.protobuf import duration_pb2, timestamp_pb2
from tollway.options.v1 import access_pb2

from cli.commands.failure import told_in_one_line
from cli.commands.options import data_dir as data_dir_option
from cli.remote.caller import Given
from cli.remote.client import TIMEOUT_SECONDS
from cli.remote.output import Output
from cli.remote.remote import Remote

Command = Callable[..., Any]
LIMIT_DEFAULT: Final = 50
_DURATION: Final = re.compile(r"(\d{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
ROLES: Final = {"owner": access_pb2.ROLE_OWNER, "admin": access_pb2.ROLE_ADMIN, "member": access_pb2.ROLE_MEMBER}

_WHERE: Final = (
    click.option(
        "--address",
        "--url",
        metavar="HOST:PORT",
        help="Where Tollway is: host:port, or https://host.  [env: TOLLWAY_<SERVICE>_ADDRESS]",
    ),
    click.option("--token", envvar="TOLLWAY_TOKEN", help="A token to call with, instead of who is signed in."),
    click.option("--profile", envvar="TOLLWAY_PROFILE", help="Which sign-in, where there are several."),
    data_dir_option,
    click.option(
        "--timeout",
        type=click.FloatRange(min=0.1, max=3_600),
        default=TIMEOUT_SECONDS,
        show_default=True,
        help="Seconds that one answer may take.",
    ),
)
_WHOSE: Final = click.option(
    "--organization",
    "of_organization",
    envvar=["TOLLWAY_ORGANIZATION", "TOLLWAY_ORGANIZATION_ID"],
    help="The organization by id or name; usually the one that you are signed in to.",
)
_PRINTING: Final = (
    click.option("--json", "as_json", is_flag=True, help="Print the contract's JSON: a document, or one a line."),
    click.option("--quiet", "-q", is_flag=True, help="Print only the id, or the secret that is shown once."),
)
_REPLAY: Final = click.option(
    "--idempotency-key", help="Repeats with the same key change nothing more; usually a new one for each command."
)


def calls_tollway(
    *, changes: bool = False, in_organization: bool = True, service: str = "auth"
) -> Callable[[Command], Command]:
    """Add the common options to a command, and hand it a `Remote` as its first argument.

    Args:
        changes: It changes something, so it has an idempotency key.
        in_organization: It is about one organization.
        service: Which service it calls.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        @click.pass_context
        def run(context: click.Context, /, **values: Any) -> None:
            with told_in_one_line():
                command(read_remote(context, values, service), **values)

        options = [*_WHERE, *_PRINTING]
        if in_organization:
            options.insert(0, _WHOSE)
        if changes:
            options.append(_REPLAY)
        decorated: Command = run
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def where_and_whose(command: Command) -> Command:
    """Add the options that say where Tollway is, who asks and for whom, to a group whose commands share them."""
    for option in reversed((_WHOSE, *_WHERE)):
        command = option(command)
    return command


def read_remote(context: click.Context, values: dict[str, Any], service: str) -> Remote:
    """Take the common options out of a command's values."""
    chosen = context.get_parameter_source("data_dir") is not ParameterSource.DEFAULT
    data_dir: Path = values.pop("data_dir")
    given = Given(
        address=values.pop("address") or "",
        token=values.pop("token") or "",
        profile=values.pop("profile") or "",
        data_dir=data_dir,
        data_dir_chosen=chosen,
        environment=os.environ,
    )
    return Remote(
        given,
        organization=values.pop("of_organization", None) or "",
        output=Output(as_json=values.pop("as_json", False), quiet=values.pop("quiet", False)),
        idempotency_key=values.pop("idempotency_key", None) or "",
        timeout_seconds=values.pop("timeout"),
        service=service,
    )


def listing(command: Command) -> Command:
    """Add the options of a list: `limit` becomes None for all."""

    @functools.wraps(command)
    def run(*arguments: Any, limit: int, everything: bool, **values: Any) -> None:
        command(*arguments, limit=None if everything else limit, **values)

    decorated = click.option("--all", "everything", is_flag=True, help="All there are, however many.")(run)
    return click.option(
        "--limit", type=click.IntRange(min=1), default=LIMIT_DEFAULT, show_default=True, help="At most so many."
    )(decorated)


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic for the type checker alone
    """A length of time: 90s, 15m, 12h, 30d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read one."""
        if isinstance(value, timedelta):
            return value
        found = _DURATION.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is no length of time: give for example 90s, 15m, 12h or 30d", param, ctx)
        return timedelta(**{_UNITS[found[2]]: int(found[1])})


class Instant(click.ParamType):  # type: ignore[type-arg]  # as above
    """A point in time (ISO 8601); without a zone it is UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read one."""
        if isinstance(value, datetime):
            return value
        try:
            found = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time: give for example 2026-12-31 or 2026-12-31T18:00:00Z", param, ctx)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def expiry_options(command: Command) -> Command:
    """Add `--expires-in` and `--expire-time`: `expire_time` becomes a timestamp, or None."""

    @functools.wraps(command)
    def run(*arguments: Any, expires_in: timedelta | None, expire_at: datetime | None, **values: Any) -> None:
        if expires_in is not None and expire_at is not None:
            raise click.UsageError("give --expires-in or --expire-time, not both")
        ends = expire_at if expires_in is None else datetime.now(UTC) + expires_in
        command(*arguments, expire_time=None if ends is None else to_timestamp(ends), **values)

    decorated = click.option("--expire-time", "expire_at", type=Instant(), help="When it ends (ISO 8601).")(run)
    return click.option("--expires-in", type=Duration(), help="When it ends, from now on, for example 30d.")(decorated)


def to_timestamp(instant: datetime) -> timestamp_pb2.Timestamp:
    """Convert an instant."""
    converted = timestamp_pb2.Timestamp()
    converted.FromDatetime(instant)
    return converted


def to_duration(length: timedelta | None) -> duration_pb2.Duration | None:
    """Convert a length of time."""
    if length is None:
        return None
    converted = duration_pb2.Duration()
    converted.FromTimedelta(length)
    return converted


def confirm(question: str, *, yes: bool) -> None:
    """Have somebody say yes; a script says `--yes`."""
    if not yes:
        click.confirm(question, abort=True, err=True)
