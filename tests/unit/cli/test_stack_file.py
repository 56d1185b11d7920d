"""`stack.json` is a contract."""

from __future__ import annotations

import json

import pytest

from cli import demo_data
from cli.stack import StackError, stack_file
from cli.stack.layout import write_json
from cli.stack.parts import parts
from contract.services import SERVICES

PIDS = {
    name: [number] for number, name in enumerate(["supervisor", "gateway", "upstream", "smtp", *SERVICES], start=10)
}
PIDS["edge"] = [1, 2, 3]


def test_it_has_the_keys_of_the_contract(installation):
    described = stack_file.describe(installation, PIDS)
    assert described["version"] == 1
    assert described["edge"] == {
        "url": "http://127.0.0.1:8080",
        "admin_url": "http://127.0.0.1:8081",
        "pids": [1, 2, 3],
    }
    assert described["gateway"]["url"] == "http://127.0.0.1:8000"
    assert described["gateway"]["graphql_path"] == "/graphql"
    assert described["services"]["auth"]["address"] == "127.0.0.1:50051"
    assert described["services"]["auth"]["metrics_url"] == "http://127.0.0.1:9101/metrics"
    assert described["postgres"]["dsn"].startswith("postgresql://postgres:")
    assert described["redis"] == {"url": installation.redis_url}
    assert described["kafka"] is None
    assert described["upstream"]["url"] == "http://127.0.0.1:9900"
    assert [(o["plan"], o["api_key"][:8]) for o in described["organizations"]] == [
        ("free", "sk_live_"),
        ("starter", "sk_live_"),
        ("pro", "sk_live_"),
    ]
    for organization in described["organizations"]:
        assert [user["role"] for user in organization["users"]] == ["owner", "admin", "member"]
        assert all(user["password"] and "@" in user["email"] for user in organization["users"])


def test_it_survives_the_way_through_its_file(installation):
    described = stack_file.describe(installation, PIDS)
    write_json(installation.layout.stack_file, described, mode=0o600)
    assert stack_file.read(installation.layout.stack_file) == json.loads(json.dumps(described))


def test_readiness_is_asked_where_the_processes_answer_it(installation):
    urls = stack_file.ready_urls(stack_file.describe(installation, PIDS))
    assert urls == {part.name: part.ready_url for part in parts(installation, {})}


@pytest.mark.parametrize("content", [None, "{", "[]", '{"version": 2}'])
def test_a_missing_or_foreign_file_is_one_clear_error(tmp_path, content):
    path = tmp_path / "stack.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StackError):
        stack_file.read(path)


def test_demo_ids_are_fixed_and_differ():
    people = [person.person_id for each in demo_data.ORGANIZATIONS for person in each.people]
    keys = [each.api_key_id for each in demo_data.TENANTS]
    organizations = [each.organization_id for each in demo_data.ORGANIZATIONS]
    ids = [*people, *keys, *organizations, demo_data.SERVICE_ACCOUNT.service_account_id]
    assert len(set(ids)) == len(ids)
    assert all(each.version == 7 for each in ids)
    assert str(demo_data.TENANTS[0].organization_id) == "01900000-0000-7000-8000-000000002000"
