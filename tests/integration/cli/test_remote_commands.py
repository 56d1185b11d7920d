"""The command line against a real auth service: a person's session, a service account's life, keys, the audit log."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.remote.profiles import CredentialsFile
from services.auth.key_limits import KeyLimits
from tests.support.accounts import PASSWORD, SeededOrganization, seed_organization
from tests.support.postgres import TestDatabase
from tests.support.running_auth import RunningAuth, running_auth


class Shell:
    """Runs `tollway` as somebody with a home folder of their own."""

    def __init__(self, home: Path, address: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TOLLWAY_")}
        self.address = address
        self.environment = clean | {"XDG_CONFIG_HOME": str(home / "config")}
        self.file = CredentialsFile.of(self.environment)

    async def run(self, *arguments: str, entered: str = "", **variables: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli", *arguments),
            env=self.environment | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        output, errors = await process.communicate(entered.encode())
        assert process.returncode is not None
        return process.returncode, output.decode(), errors.decode()

    async def ok(self, *arguments: str, entered: str = "", **variables: str) -> str:
        code, output, errors = await self.run(*arguments, entered=entered, **variables)
        assert code == 0, errors
        return output

    async def json(self, *arguments: str, **variables: str) -> Any:
        return json.loads(await self.ok(*arguments, "--json", **variables))

    async def login(self, email: str) -> None:
        arguments = ("login", "--address", self.address, "--email", email, "--password-stdin")
        await self.ok(*arguments, entered=f"{PASSWORD}\n")

    def make_old(self) -> None:
        """Have the session look as if it was about to end."""
        text = self.file.path.read_text()
        described = json.loads(text)
        described["profiles"]["default"]["expire_time"] = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
        self.file.path.write_text(json.dumps(described))


@pytest.fixture
async def auth(database: TestDatabase) -> AsyncIterator[RunningAuth]:
    limits = KeyLimits(per_organization_max=5_000, per_person_and_minute_max=1_000)
    async with running_auth(database, limits=limits) as running:
        yield running


@pytest.fixture
async def acme(auth: RunningAuth) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"), "acme")


@pytest.fixture
async def shell(auth: RunningAuth, acme: SeededOrganization, tmp_path: Path) -> Shell:
    shell = Shell(tmp_path, auth.address)
    await shell.login(acme.email)
    return shell


async def test_a_service_accounts_life(shell: Shell, acme: SeededOrganization) -> None:
    created = await shell.json("service-account", "create", "ci", "--role", "admin", "--expires-in", "30d")
    account, token = created["service_account"]["service_account_id"], created["token"]
    me = await shell.json("whoami", TOLLWAY_TOKEN=token)
    assert (me["service_account"]["service_account_id"], me["role"]) == (account, "ROLE_ADMIN")
    key = (await shell.ok("apikey", "create", "web", "--scope", "read", "-q", TOLLWAY_TOKEN=token)).strip()
    assert key.startswith("sk_live_")
    code, _, errors = await shell.run("service-account", "create", "x", "--role", "owner", TOLLWAY_TOKEN=token)
    assert (code, "ROLE_ABOVE_OWN" in errors) == (1, True)
    rotated = (await shell.ok("service-account", "rotate", account, "--overlap", "1h", "-q")).strip()
    for each in (token, rotated):
        assert (await shell.json("whoami", TOLLWAY_TOKEN=each))["organization_id"] == str(acme.organization_id)
    changed = await shell.json("service-account", "update", account, "--name", "cd", "--role", "member")
    assert (changed["name"], changed["role"]) == ("cd", "ROLE_MEMBER")
    await shell.ok("service-account", "revoke", account, "--yes")
    for each in (token, rotated):
        code, _, errors = await shell.run("apikey", "list", TOLLWAY_TOKEN=each)
        assert (code, "CREDENTIALS_INVALID" in errors) == (3, True)
    shown = (await shell.ok("service-account", "list")).splitlines()
    assert (len(shown), account in shown[1]) == (2, True)
    actions = [json.loads(line)["action"] for line in (await shell.ok("org", "audit", "list", "--json")).splitlines()]
    verbs = [action for action in actions if action.startswith("service_account.")]
    assert verbs == [f"service_account.{verb}" for verb in ("revoke", "update", "rotate", "create")]


async def test_commands_at_once_renew_an_old_session_once_and_it_goes_on(shell: Shell) -> None:
    before = shell.file.read().by_name["default"]
    for _ in range(2):
        shell.make_old()
        outcomes = await asyncio.gather(*(shell.run("whoami", "-q") for _ in range(6)))
        assert {(code, errors) for code, _, errors in outcomes} == {(0, "")}
    after = shell.file.read().by_name["default"]
    assert after.refresh_token != before.refresh_token
    assert len((await shell.ok("user", "sessions", "list", "-q")).split()) == 1


async def test_a_session_that_was_ended_elsewhere_says_so(
    shell: Shell, acme: SeededOrganization, tmp_path: Path
) -> None:
    elsewhere = Shell(tmp_path / "elsewhere", shell.address)
    await elsewhere.login(acme.email)
    assert len((await shell.ok("user", "sessions", "list", "-q")).split()) == 2
    await elsewhere.ok("user", "sessions", "revoke", "--others")
    code, _, errors = await shell.run("whoami")
    assert (code, "tollway login" in errors) == (3, True)
    await elsewhere.ok("logout")
    assert elsewhere.file.read().by_name == {}
    assert (await elsewhere.run("whoami"))[0] == 3


async def test_a_wrong_password_and_an_unknown_address_read_alike(shell: Shell, acme: SeededOrganization) -> None:
    said = set()
    for email in (acme.email, "nobody@acme.example"):
        arguments = ("login", "--address", shell.address, "--email", email, "--password-stdin", "--profile", "other")
        code, output, errors = await shell.run(*arguments, entered="wrong horse\n")
        said.add((code, output, errors.partition(", request ")[0]))
    assert said == {(3, "", "tollway: The e-mail address or the password is wrong. (UNAUTHENTICATED SIGN_IN_REFUSED")}
    assert set(shell.file.read().by_name) == {"default"}


async def test_the_same_idempotency_key_makes_one_account(shell: Shell) -> None:
    arguments = ("service-account", "create", "ci", "-q", "--idempotency-key", "deploy-1")
    assert await shell.ok(*arguments) == await shell.ok(*arguments)
    assert len((await shell.ok("service-account", "list", "-q")).split()) == 1


async def test_keys_are_imported_and_the_plain_ones_never_leave_the_machine(
    shell: Shell, auth: RunningAuth, tmp_path: Path
) -> None:
    source = tmp_path / "keys.jsonl"
    rows = [json.dumps({"key": f"acme_live_{number:032}", "name": f"n{number}"}) for number in range(1_200)]
    arguments = ("apikey", "import", str(source), "--key-prefix", "acme_live_", "--idempotency-key", "move", "-q")
    source.write_text("\n".join([*rows[:-1], json.dumps({"key": "acme_live_x", "name": ""})]))
    code, _, errors = await shell.run(*arguments)
    assert (code, "1000 of 1200 keys are imported" in errors, "api_keys[199].name" in errors) == (2, True, True)
    # Once the row is mended, the same command goes on: what is there already is not imported twice.
    source.write_text("\n".join(rows))
    assert len((await shell.ok(*arguments)).split()) == 1_200
    assert len((await shell.ok("apikey", "list", "--all", "-q")).split()) == 1_200
    again = (*arguments[:-3], "--idempotency-key", "another", "-q")
    code, _, errors = await shell.run(*again)
    assert (code, errors.count("\n")) == (1, 1)
    async with auth.db.system() as tx:
        rows = await tx.fetch("SELECT k::text FROM api_keys AS k LIMIT 5")
    assert all("acme_live_0" not in row[0] for row in rows)


async def test_nobody_listens_there(shell: Shell) -> None:
    code, output, errors = await shell.run("whoami", "--address", "127.0.0.1:1", "--token", "x", "--timeout", "2")
    assert (code, output, errors.count("\n")) == (4, "", 1)
    assert "auth at 127.0.0.1:1 answers UNAVAILABLE" in errors


async def test_credentials_cross_no_network_in_clear(shell: Shell) -> None:
    code, _, errors = await shell.run("whoami", "--address", "192.0.2.1:443", "--token", "x")
    assert (code, "in clear" in errors) == (1, True)
    for wrong in ("http://192.0.2.1", "ftp://x:1", "https://", "https://x:port", "https://x/path"):
        code, _, errors = await shell.run("whoami", "--address", wrong, "--token", "x")
        assert (code, "is no address" in errors) == (2, True)
