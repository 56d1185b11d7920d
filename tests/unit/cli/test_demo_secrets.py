"""Demo keys and passwords belong to an installation and come back on every start."""

from __future__ import annotations

from tollway.auth.v1 import auth_service_pb2

from cli import demo_data
from cli.stack import secrets
from contract import key_format


def test_the_same_installation_derives_the_same_and_another_one_others(tmp_path):
    one = secrets.load_or_create(tmp_path / "1", database_exists=False)
    again = secrets.load(tmp_path / "1")
    other = secrets.load_or_create(tmp_path / "2", database_exists=False)
    for tenant in demo_data.TENANTS:
        assert tenant.api_key(one) == tenant.api_key(again) != tenant.api_key(other)
        assert key_format.parse(tenant.api_key(one)) == auth_service_pb2.KEY_MODE_LIVE
    person = demo_data.TENANTS[0].people[0]
    assert person.password(one) == person.password(again) != person.password(other)


def test_no_two_demo_secrets_are_alike(tmp_path):
    kept = secrets.load_or_create(tmp_path / "1", database_exists=False)
    found = [tenant.api_key(kept) for tenant in demo_data.TENANTS]
    found += [person.password(kept) for each in demo_data.ORGANIZATIONS for person in each.people]
    found.append(demo_data.SERVICE_ACCOUNT.token(kept))
    assert len(set(found)) == len(found)
    assert demo_data.SERVICE_ACCOUNT.token(kept).startswith("tw_sa_")
