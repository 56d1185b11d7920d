"""`tollway apikey`: API keys of an organization."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import click
from google.protobuf import field_mask_pb2, timestamp_pb2
from tollway.auth.v1 import auth_service_pb2 as pb

from cli.commands.key_files import FORMATS, MODES, read_key_file
from cli.commands.remote import Duration, calls_tollway, confirm, expiry_options, listing, to_duration
from cli.remote.failures import CommandFailed
from cli.remote.output import instant, word
from cli.remote.remote import Remote

IMPORTED_AT_ONCE_MAX: Final = 1_000


@click.group()
def apikey() -> None:
    """Keys that API clients call with."""


@apikey.command()
@click.argument("name")
@click.option("--mode", type=click.Choice(list(MODES)), default="live", show_default=True)
@click.option("--scope", "scopes", multiple=True, help="A scope that routes ask for; may be given several times.")
@click.option("--allow-ip", "allowed_ips", multiple=True, help="An address or network that may use it; several.")
@click.option("--subject", "external_subject", help="The end user of yours that it stands for.")
@expiry_options
@calls_tollway(changes=True)
def create(remote: Remote, name: str, mode: str, expire_time: timestamp_pb2.Timestamp | None, **fields: Any) -> None:
    """Create an API key and show it, this once."""
    request = pb.CreateApiKeyRequest(
        organization_id=remote.organization_id,
        name=name,
        mode=MODES[mode],
        expire_time=expire_time,
        idempotency_key=remote.idempotency_key,
        **fields,
    )
    _print_created(remote, remote.client.call(remote.client.auth.CreateApiKey, request))


@apikey.command("list")
@click.option("--mode", type=click.Choice(list(MODES)), help="Only live or only test keys.")
@click.option("--usable", is_flag=True, help="Without revoked and expired keys.")
@click.option("--creator", help="Only keys that this person or service account (id) created.")
@listing
@calls_tollway()
def list_api_keys(remote: Remote, limit: int | None, mode: str | None, usable: bool, creator: str | None) -> None:
    """List API keys, newest first."""
    request = pb.ListApiKeysRequest(
        organization_id=remote.organization_id,
        mode=MODES[mode] if mode else pb.KEY_MODE_UNSPECIFIED,
        usable_only=usable,
        creator_id=creator or "",
    )
    columns = [
        ("ID", lambda each: each.api_key_id),
        ("NAME", lambda each: each.name),
        ("KEY", lambda each: each.hint),
        ("MODE", lambda each: word(pb.KeyMode, each.mode)),
        ("SCOPES", lambda each: " ".join(each.scopes) or "-"),
        ("EXPIRES", lambda each: instant(each, "expire_time")),
        ("LAST USED", lambda each: instant(each, "last_use_time")),
        ("REVOKED", lambda each: instant(each, "revoke_time")),
    ]
    found = remote.client.pages(remote.client.auth.ListApiKeys, request, "api_keys", limit=limit)
    remote.output.many(found, columns, essence=lambda each: str(each.api_key_id), none="There are no API keys.")


@apikey.command()
@click.argument("api_key_id")
@calls_tollway()
def show(remote: Remote, api_key_id: str) -> None:
    """Show an API key (never its secret)."""
    request = pb.GetApiKeyRequest(organization_id=remote.organization_id, api_key_id=api_key_id)
    _print(remote, remote.client.call(remote.client.auth.GetApiKey, request))


@apikey.command()
@click.argument("api_key_id")
@click.option("--name", help="Display name.")
@click.option("--scope", "scopes", multiple=True, help="Its scopes from now on; several. '' means none.")
@click.option("--allow-ip", "allowed_ips", multiple=True, help="Its networks from now on; several. '' means any.")
@click.option("--subject", "external_subject", help="The end user of yours that it stands for.")
@expiry_options
@calls_tollway(changes=True)
def update(remote: Remote, api_key_id: str, expire_time: timestamp_pb2.Timestamp | None, **fields: Any) -> None:
    """Change an API key; in force everywhere within a second."""
    changed = {field: value for field, value in fields.items() if value is not None and value != ()}
    for field in ("scopes", "allowed_ips"):
        if field in changed:
            changed[field] = [value for value in changed[field] if value]
    if expire_time is not None:
        changed["expire_time"] = expire_time
    if not changed:
        raise click.UsageError("nothing to change: give --name, --scope, --allow-ip, --subject or --expires-in")
    request = pb.UpdateApiKeyRequest(
        organization_id=remote.organization_id,
        api_key=pb.ApiKey(api_key_id=api_key_id, **changed),
        update_mask=field_mask_pb2.FieldMask(paths=list(changed)),
        idempotency_key=remote.idempotency_key,
    )
    _print(remote, remote.client.call(remote.client.auth.UpdateApiKey, request))


@apikey.command()
@click.argument("api_key_id")
@click.option("--overlap", type=Duration(), help="How long the old key goes on working, for example 24h; usually not.")
@calls_tollway(changes=True)
def rotate(remote: Remote, api_key_id: str, overlap: timedelta | None) -> None:
    """Replace a key by a new one that may do the same, and show that, this once."""
    request = pb.RotateApiKeyRequest(
        organization_id=remote.organization_id,
        api_key_id=api_key_id,
        overlap=to_duration(overlap),
        idempotency_key=remote.idempotency_key,
    )
    _print_created(remote, remote.client.call(remote.client.auth.RotateApiKey, request))


@apikey.command()
@click.argument("api_key_id")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@calls_tollway(changes=True)
def revoke(remote: Remote, api_key_id: str, yes: bool) -> None:
    """Revoke an API key, for good; every edge refuses it within a second."""
    confirm(f"Revoke {api_key_id} for good?", yes=yes)
    request = pb.RevokeApiKeyRequest(
        organization_id=remote.organization_id, api_key_id=api_key_id, idempotency_key=remote.idempotency_key
    )
    _print(remote, remote.client.call(remote.client.auth.RevokeApiKey, request))


@apikey.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--format", "form", type=click.Choice(list(FORMATS)), help="What FILE is; usually told by its name.")
@click.option("--key-prefix", help="What the keys begin with, where FILE does not say it, for example acme_live_.")
@calls_tollway(changes=True)
def import_keys(remote: Remote, file: Path, form: str | None, key_prefix: str | None) -> None:
    """Take over keys that customers hold already, from a CSV or JSON file.

    A row has `sha256` (hex of the key's SHA-256), or `key`: that one is hashed here and never leaves this machine.
    Besides: `name`, `key_prefix`, `mode`, `scopes` and `allowed_ips` (separated by blanks in CSV), `external_subject`,
    `expire_time`. Each thousand is imported whole or not at all, and may be repeated.
    """
    keys = read_key_file(file, form, key_prefix or "")
    done: list[pb.ApiKey] = []
    for at in range(0, len(keys), IMPORTED_AT_ONCE_MAX):
        request = pb.ImportApiKeysRequest(
            organization_id=remote.organization_id,
            api_keys=keys[at : at + IMPORTED_AT_ONCE_MAX],
            idempotency_key=f"{remote.idempotency_key}-{at}",
        )
        try:
            done += remote.client.call(remote.client.auth.ImportApiKeys, request).api_keys
        except CommandFailed as error:
            if not done:
                raise
            again = f"--idempotency-key {remote.idempotency_key}"
            raise CommandFailed(
                f"{len(done)} of {len(keys)} keys are imported, then: {error}; {again} goes on from there",
                error.exit_code,
            ) from error
    columns = [
        ("ID", lambda each: each.api_key_id),
        ("NAME", lambda each: each.name),
        ("PREFIX", lambda each: each.key_prefix),
        ("MODE", lambda each: word(pb.KeyMode, each.mode)),
    ]
    remote.output.many(done, columns, essence=lambda each: str(each.api_key_id), none=f"{file} holds no keys.")


def _facts(api_key: pb.ApiKey) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = [
        ("id", api_key.api_key_id),
        ("organization", api_key.organization_id),
        ("name", api_key.name),
        ("hint", api_key.hint),
        ("mode", word(pb.KeyMode, api_key.mode)),
        ("scopes", " ".join(api_key.scopes) or "-"),
        ("allowed from", " ".join(api_key.allowed_ips) or "anywhere"),
        ("subject", api_key.external_subject or "-"),
        ("creator", api_key.creator_id),
        ("created", instant(api_key, "create_time")),
        ("expires", instant(api_key, "expire_time")),
        ("last used", instant(api_key, "last_use_time")),
        ("revoked", instant(api_key, "revoke_time")),
    ]
    if api_key.replaced_by_id:
        facts.append(("replaced by", api_key.replaced_by_id))
    return facts


def _print(remote: Remote, api_key: pb.ApiKey) -> None:
    remote.output.one(api_key, _facts(api_key), essence=api_key.api_key_id)


def _print_created(remote: Remote, created: pb.CreateApiKeyResponse) -> None:
    remote.output.one(created, _facts(created.api_key), essence=created.secret, secret=("key", created.secret))
