"""Keys come from the environment: of the right form, each once, and outside local none that nobody draws at random."""

from __future__ import annotations

import hashlib

import pytest

from mesh import config
from mesh.config import HexKey, ProcessSettings, VersionedKeys
from tests.support.processes import PUBLIC_KEYS, process_fields

STRONG = hashlib.sha256(b"strong").hexdigest()
WEAK = ["11" * 32, "00" * 32, "deadbeef" * 8, "0123" * 16, bytes(range(32)).hex(), bytes(range(64, 0, -2)).hex()]


class Settings(ProcessSettings):
    data_keys: VersionedKeys
    page_token_key: HexKey


def settings(**changes):
    given = {**process_fields("auth"), "data_keys": f"1:{STRONG}", "page_token_key": STRONG, **changes}
    return Settings(**given)


@pytest.mark.parametrize("weak", WEAK)
@pytest.mark.parametrize("field", ["process_key", "process_public_keys", "page_token_key", "data_keys"])
def test_a_key_that_nobody_draws_at_random_is_refused_outside_local(field, weak):
    value = {"data_keys": f"1:{STRONG},2:{weak}", "process_public_keys": f"auth:{STRONG},cli:{weak}"}.get(field, weak)
    settings(environment="local", **{field: value})
    settings(environment="production")
    with pytest.raises(ValueError, match="is a sample, not a secret") as told:
        settings(environment="production", **{field: value})
    assert field in str(told.value)


@pytest.mark.parametrize("field", ["process_key", "page_token_key", "data_keys", "process_public_keys"])
@pytest.mark.parametrize("value", ["", "1:", "1:11", "11", "zz" * 32, STRONG + "00", "auth:", ":" + STRONG])
def test_keys_of_another_form_are_refused_everywhere(field, value):
    with pytest.raises(ValueError, match=field):
        settings(**{field: value})


def test_a_version_stands_once_and_a_key_for_one_process():
    with pytest.raises(ValueError, match="version 1 comes twice"):
        settings(data_keys=f"1:{STRONG},1:{STRONG}")
    with pytest.raises(ValueError, match="have the same key"):
        settings(process_public_keys=f"auth:{STRONG},billing:{STRONG}")


@pytest.mark.parametrize("path", ["", "no-such-file", "."])
def test_a_file_of_tls_that_is_none_is_named(path):
    with pytest.raises(ValueError, match="tls_key"):
        settings(tls_certificate=__file__, tls_key=path, tls_ca=__file__)


def test_what_is_wrong_is_told_without_the_value(monkeypatch, capsys):
    monkeypatch.setenv("TOLLWAY_ENVIRONMENT", "production")
    monkeypatch.setenv("TOLLWAY_PROCESS_KEY", "ab" * 32)
    monkeypatch.setenv("TOLLWAY_PROCESS_PUBLIC_KEYS", PUBLIC_KEYS)
    with pytest.raises(SystemExit):
        config.load(ProcessSettings)
    told = capsys.readouterr().err
    assert told.startswith("TOLLWAY_PROCESS_KEY: ")
    assert "abab" not in told
