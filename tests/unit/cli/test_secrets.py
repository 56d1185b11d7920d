"""The installation's secrets."""

from __future__ import annotations

import dataclasses
import json
import stat

import pytest

from cli.stack import StackError, secrets
from cli.stack.servers import roles
from mesh.clock import SystemClock
from mesh.config import ProcessSettings, versioned_keys
from mesh.rpc.process_tokens import ProcessTokens, read_process_token
from mesh.secretbox import SecretBox


def test_secrets_are_made_once_and_only_their_owner_reads_them(tmp_path):
    path = tmp_path / "secrets.json"
    first = secrets.load_or_create(path, database_exists=False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secrets.load_or_create(path, database_exists=True) == first
    assert set(first.postgres_passwords) == {roles.SUPERUSER, *roles.logins()}
    assert len(set(first.postgres_passwords.values())) == len(first.postgres_passwords)


def test_two_installations_share_no_secret(tmp_path):
    one, other = (secrets.load_or_create(tmp_path / name, database_exists=False) for name in ("1", "2"))
    assert one.process_key("auth") != other.process_key("auth")
    assert one.derive("purpose") != other.derive("purpose")


def test_derived_bytes_depend_on_their_purpose_alone(tmp_path):
    found = secrets.load_or_create(tmp_path / "s", database_exists=False)
    assert found.derive("a") == found.derive("a") != found.derive("b")
    assert len(found.derive("a", 9)) == 9


def test_a_database_without_its_secrets_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(StackError, match="--reset"):
        secrets.load_or_create(tmp_path / "secrets.json", database_exists=True)
    assert not (tmp_path / "secrets.json").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 1, "process_secret": "x"}', '{"version": 1}', "\x00"])
def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "secrets.json"
    path.write_text(content)
    with pytest.raises(StackError):
        secrets.load_or_create(path, database_exists=False)
    assert path.read_text() == content


def test_secrets_do_not_show_up_in_their_repr(tmp_path):
    found = secrets.load_or_create(tmp_path / "s", database_exists=False)
    values = json.loads((tmp_path / "s").read_text())
    assert not any(str(value) in repr(found) for name, value in values.items() if name != "version")


def test_the_secrets_of_an_older_installation_open_what_its_shared_data_key_has_sealed(tmp_path):
    made = dataclasses.asdict(secrets.load_or_create(tmp_path / "new", database_exists=False))
    old = {**made, "version": 1, "process_secret": "11" * 32, "data_key": "22" * 32}
    (tmp_path / "old").write_text(json.dumps(old))
    found = secrets.load(tmp_path / "old")
    sealed = SecretBox({1: bytes.fromhex("22" * 32)}).seal(b"answer", b"row")
    for service in ("auth", "billing", "notification"):
        box = SecretBox(versioned_keys(found.data_keys(service)))
        assert box.open(sealed, b"row") == b"answer"
        assert box.seal(b"new", b"row").key_version == 2
    assert len({found.data_keys(service) for service in ("auth", "billing", "notification")}) == 3


def test_the_processes_know_each_other_by_their_public_keys(tmp_path):
    found = secrets.load_or_create(tmp_path / "s", database_exists=False)
    settings = ProcessSettings(**found.process_fields("billing"))
    token = ProcessTokens(seed=settings.process_seed, process="billing", clock=SystemClock()).bearer("ratelimit")
    claims = read_process_token(token.removeprefix("Bearer "), settings.process_keys, "ratelimit")
    assert claims["sub"] == "billing"
