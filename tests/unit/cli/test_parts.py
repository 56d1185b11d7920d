"""What each process is started with: everything it needs, and no other's secrets."""

from __future__ import annotations

import dataclasses

import pytest

from cli.stack.parts import ROOT, inherited_environment, parts
from cli.stack.secrets import PROCESSES
from contract.services import SERVICES

EVERY = ["smtp", "upstream", *SERVICES, "gateway", "edge"]


def test_every_process_of_the_stack_is_there_with_a_log_of_its_own(installation):
    found = parts(installation, {})
    assert [part.name for part in found] == EVERY
    assert len({part.log_path for part in found}) == len(EVERY)
    assert len({part.ready_url for part in found}) == len(EVERY)


def test_sources_that_are_watched_exist(installation):
    for part in parts(installation, {}):
        assert all((ROOT / folder).is_dir() for folder in part.sources)


def test_signing_key_and_peppers_stay_with_whom_they_concern(installation):
    holders = {
        name: {part.name for part in parts(installation, {}) if secret in str(dict(part.environment))}
        for name, secret in (
            ("signing key", installation.secrets.signing_key),
            ("pepper", installation.secrets.key_pepper),
            ("auth's data keys", installation.secrets.data_keys("auth")),
            ("billing's data keys", installation.secrets.data_keys("billing")),
            ("auth's page token key", installation.secrets.page_token_key("auth")),
            *((f"key of {name}", installation.secrets.process_key(name).hex()) for name in PROCESSES),
            ("Redis", installation.redis_url),
            ("installation secret", installation.secrets.installation_secret),
            ("superuser", installation.secrets.postgres_passwords["postgres"]),
            ("owner", installation.secrets.postgres_passwords["tollway_owner"]),
        )
    }
    assert holders == {
        "signing key": {"auth"},
        "pepper": {"auth", "edge"},
        "auth's data keys": {"auth"},
        "billing's data keys": {"billing"},
        "auth's page token key": {"auth"},
        **{f"key of {name}": {name} for name in SERVICES},
        "key of edge_proxy": {"edge"},
        "key of graphql_gateway": {"gateway"},
        "key of cli": set(),
        "Redis": {"ratelimit"},
        "installation secret": set(),
        "superuser": set(),
        "owner": set(),
    }


def part_environment(installation, name, inherited):
    return next(part for part in parts(installation, inherited) if part.name == name).environment


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_knows_its_own_database_roles_only(installation, service):
    environment = part_environment(installation, service, {})
    passwords = installation.secrets.postgres_passwords
    known = {login for login, password in passwords.items() if password in str(environment)}
    assert known == {f"tollway_{service}", f"tollway_{service}_system"}


def test_kafka_is_told_to_whom_it_concerns_only_where_there_is_one(installation):
    assert "TOLLWAY_KAFKA_BOOTSTRAP" not in part_environment(installation, "edge", {})
    with_kafka = dataclasses.replace(installation, kafka_bootstrap="127.0.0.1:9092")
    assert part_environment(with_kafka, "metering", {})["TOLLWAY_KAFKA_BOOTSTRAP"] == "127.0.0.1:9092"


def test_what_the_user_set_reaches_the_processes_but_not_the_admins_password(installation, monkeypatch):
    monkeypatch.setenv("TOLLWAY_LOG_LEVEL", "debug")
    monkeypatch.setenv("TOLLWAY_POSTGRES_ADMIN_DSN", "postgresql://admin:admin@db/x")
    monkeypatch.setenv("TOLLWAY_REDIS_URL", "redis://:secret@elsewhere/0")
    monkeypatch.setenv("TOLLWAY_SMTP_URL", "smtp://mail.example:25")
    inherited = inherited_environment()
    environment = part_environment(installation, "notification", inherited)
    assert environment["TOLLWAY_LOG_LEVEL"] == "debug"
    assert environment["TOLLWAY_SMTP_URL"] == "smtp://mail.example:25"
    assert "TOLLWAY_POSTGRES_ADMIN_DSN" not in environment
    assert "TOLLWAY_REDIS_URL" not in environment
