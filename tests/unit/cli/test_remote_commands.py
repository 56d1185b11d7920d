"""Commands that talk to Tollway, on grpcio-testing's channel: what they ask, what they print, how they end."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import timestamp_pb2
from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.metering.v1 import metering_service_pb2
from tollway.options.v1 import access_pb2

from cli.remote.profiles import CredentialsFile, Profile, Profiles
from mesh.rpc.access import CredentialsInvalid, RoleInsufficient
from mesh.rpc.errors import FieldViolation, InvalidFields
from services.auth.errors import (
    RefreshRefused,
    SecondFactorRequired,
    ServiceAccountLimitReached,
    ServiceAccountNotFound,
    SignInRefused,
    SignInThrottled,
)
from tests.support.machine_tokens import machine_token
from tests.support.tollway_script import Outcome, TollwayScript, tollway_script

pytestmark = pytest.mark.timeout(60)
ACME, OTHER = "01890a5d-ac96-774b-bcce-b302099a8057", "01890a5d-ac96-774b-bcce-b302099a8058"
PERSON = "01890a5d-ac96-774b-bcce-b302099a8059"
TOKEN = machine_token("ci")
ADDRESS = "auth.test:443"


def at(instant: datetime) -> timestamp_pb2.Timestamp:
    converted = timestamp_pb2.Timestamp()
    converted.FromDatetime(instant)
    return converted


def in_minutes(minutes: float) -> datetime:
    return datetime.now(UTC) + timedelta(minutes=minutes)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("TOLLWAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[TollwayScript]:
    with tollway_script(monkeypatch) as running:
        yield running


@pytest.fixture
def file() -> CredentialsFile:
    return CredentialsFile.of(os.environ)


def session(token: str = "access", refresh: str = "refresh", minutes: float = 15, **fields: Any) -> Any:
    return pb.CreateSessionResponse(
        access_token=token,
        expire_time=at(in_minutes(minutes)),
        organization_id=fields.pop("organization_id", ACME),
        person_id=PERSON,
        role=access_pb2.ROLE_OWNER,
        refresh_token=refresh,
        refresh_expire_time=at(in_minutes(7 * 24 * 60)),
        **fields,
    )


def signed_in(file: CredentialsFile, *, minutes: float = 15, name: str = "default", **fields: Any) -> None:
    profile = Profile(
        address=ADDRESS,
        token=fields.pop("token", "access"),
        account="ada@acme.example",
        organization_id=ACME,
        expire_time=in_minutes(minutes),
        refresh_token=fields.pop("refresh_token", "refresh"),
        **fields,
    )
    with file.locked():
        file.write(file.read().with_profile(name, profile))


def me(**fields: Any) -> pb.GetMeResponse:
    memberships = [
        pb.Membership(organization_id=ACME, organization_name="Acme", role=access_pb2.ROLE_OWNER),
        pb.Membership(organization_id=OTHER, organization_name="Other Ltd", role=access_pb2.ROLE_MEMBER),
    ]
    person = pb.Person(person_id=PERSON, email="ada@acme.example", memberships=memberships)
    return pb.GetMeResponse(person=person, organization_id=ACME, role=access_pb2.ROLE_OWNER, **fields)


def machine(**fields: Any) -> pb.ServiceAccount:
    return pb.ServiceAccount(
        **{
            "service_account_id": OTHER,
            "organization_id": ACME,
            "name": "ci",
            "role": access_pb2.ROLE_ADMIN,
            "hint": "tw_sa_1234…5678",
            "create_time": at(datetime(2026, 1, 2, tzinfo=UTC)),
            "expire_time": at(datetime(2026, 4, 2, tzinfo=UTC)),
            **fields,
        }
    )


def one_line(outcome: Outcome) -> str:
    assert outcome.err.startswith("tollway: ")
    assert outcome.err.count("\n") == 1
    return outcome.err


# --- signing in


def test_login_keeps_the_session_where_only_its_owner_reads_it(script: TollwayScript, file: CredentialsFile) -> None:
    done = script.run(
        f"login --address {ADDRESS} --email ada@acme.example", ("CreateSession", session()), input="secret pass\n"
    )
    assert (done.code, done.unanswered) == (0, [])
    (call,) = done.calls
    assert (call.request.email, call.request.password) == ("ada@acme.example", "secret pass")
    assert "authorization" not in call.metadata
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    kept = file.read().by_name["default"]
    assert (kept.token, kept.refresh_token, kept.account, kept.address) == (
        "access",
        "refresh",
        "ada@acme.example",
        ADDRESS,
    )
    assert "secret pass" not in done.out + done.err + file.path.read_text()


def test_a_second_factor_is_asked_for_where_there_is_one(script: TollwayScript) -> None:
    done = script.run(
        f"login --address {ADDRESS} --email ada@acme.example",
        ("CreateSession", SecondFactorRequired()),
        ("CreateSession", session()),
        input="secret pass\n123456\n",
    )
    assert done.code == 0
    assert [call.request.second_factor_code for call in done.calls] == ["", "123456"]


def test_a_script_signs_in_by_standard_input(script: TollwayScript) -> None:
    done = script.run(
        f"login --address {ADDRESS} --email ada@acme.example --password-stdin --quiet",
        ("CreateSession", SecondFactorRequired()),
        ("CreateSession", session()),
        input="secret pass\n123456\n",
    )
    assert (done.code, done.out, done.err) == (0, "", "")
    assert done.calls[1].request.second_factor_code == "123456"


@pytest.mark.parametrize(("given", "entered"), [(TOKEN, None), ("-", f"{TOKEN}\n")])
def test_a_service_account_signs_in_by_its_token(
    script: TollwayScript, file: CredentialsFile, given: str, entered: str | None
) -> None:
    who = pb.GetMeResponse(service_account=machine(), organization_id=ACME, role=access_pb2.ROLE_ADMIN)
    done = script.run(f"login --address {ADDRESS} --token {given} --profile ci", ("GetMe", who), input=entered)
    assert done.code == 0
    assert done.calls[0].metadata["authorization"] == f"Bearer {TOKEN}"
    assert (file.read().current, file.read().by_name["ci"].token) == ("ci", TOKEN)
    assert TOKEN not in done.out + done.err


@pytest.mark.parametrize("wrong", ["tw_sa_1234", TOKEN[:-1], "sk_live_1", TOKEN + "0"])
def test_a_mistyped_token_is_noticed_before_anything_is_sent(
    script: TollwayScript, file: CredentialsFile, wrong: str
) -> None:
    done = script.run(f"login --address {ADDRESS} --token {wrong}")
    assert done.code == 1
    assert "no token of a service account" in one_line(done)
    assert (done.calls, file.path.exists()) == ([], False)


def test_a_refused_sign_in_keeps_nothing(script: TollwayScript, file: CredentialsFile) -> None:
    done = script.run(f"login --address {ADDRESS} --email a@b.example", ("CreateSession", SignInRefused()), input="x\n")
    assert done.code == 3
    assert "SIGN_IN_REFUSED" in done.err
    assert not file.path.exists()
    throttled = SignInThrottled(retry_after_seconds=30)
    done = script.run(f"login --address {ADDRESS} --email a@b.example", ("CreateSession", throttled), input="x\n")
    assert done.code == 6
    assert "try again in 30 s" in done.err


def test_login_to_an_organization_by_name_moves_the_session_there(script: TollwayScript, file: CredentialsFile) -> None:
    done = script.run(
        ["login", "--address", ADDRESS, "--email", "ada@acme.example", "--organization", "other ltd"],
        ("CreateSession", session()),
        ("GetMe", me()),
        ("SwitchOrganization", session("moved", "refresh 2", organization_id=OTHER)),
        input="secret pass\n",
    )
    assert (done.code, done.unanswered) == (0, [])
    assert done.calls[2].request.organization_id == OTHER
    kept = file.read().by_name["default"]
    assert (kept.token, kept.refresh_token, kept.organization_id) == ("moved", "refresh 2", OTHER)


def test_logout_ends_the_session_and_forgets_it(script: TollwayScript, file: CredentialsFile) -> None:
    signed_in(file)
    done = script.run("logout", ("RevokeSession", pb.RevokeSessionResponse()))
    assert (done.code, done.calls[0].metadata["authorization"]) == (0, "Bearer access")
    assert file.read().by_name == {}
    signed_in(file)
    done = script.run("logout --everywhere", ("RevokeAllSessions", pb.RevokeAllSessionsResponse(revoked_count=3)))
    assert (done.code, done.calls[0].request.keep_current, file.read().by_name) == (0, False, {})
    assert script.run("logout").code == 3


def test_logout_forgets_the_tokens_even_where_tollway_is_away_and_says_so(
    script: TollwayScript, file: CredentialsFile
) -> None:
    signed_in(file)
    done = script.run("logout", ("RevokeSession", grpc.StatusCode.UNAVAILABLE))
    assert (done.code, file.read().by_name) == (4, {})
    assert "the session goes on" in one_line(done)
    signed_in(file)
    done = script.run("logout", ("RevokeSession", CredentialsInvalid()), ("RefreshSession", RefreshRefused()))
    assert (done.code, file.read().by_name) == (0, {})


def test_whoami_says_who_and_as_what(script: TollwayScript, file: CredentialsFile) -> None:
    signed_in(file)
    done = script.run("whoami", ("GetMe", me(platform_roles=[access_pb2.PLATFORM_ROLE_SUPPORT])))
    assert done.code == 0
    for said in ("ada@acme.example", "person", ACME, "owner", "support", ADDRESS):
        assert said in done.out
    assert json.loads(script.run("whoami --json", ("GetMe", me())).out)["person"]["person_id"] == PERSON
    assert script.run("whoami -q", ("GetMe", me())).out == f"{PERSON}\n"


def test_several_sign_ins_are_told_apart(script: TollwayScript, file: CredentialsFile) -> None:
    signed_in(file, name="live", token="one")
    signed_in(file, name="test", token="two")
    assert script.run("whoami", ("GetMe", me())).calls[0].metadata["authorization"] == "Bearer two"
    done = script.run("whoami --profile live", ("GetMe", me()))
    assert done.calls[0].metadata["authorization"] == "Bearer one"
    assert script.run("profile use live").code == 0
    assert script.run("whoami", ("GetMe", me())).calls[0].metadata["authorization"] == "Bearer one"
    listed = script.run("profile list").out.splitlines()
    assert [line.split()[:2] for line in listed] == [["*", "live"], ["test", "ada@acme.example"]]
    for wrong in ("whoami --profile none", "profile use none"):
        assert script.run(wrong).code == 3


# --- the credentials file


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622, 0o777, 0o660])
def test_a_file_that_others_may_use_is_refused(script: TollwayScript, file: CredentialsFile, mode: int) -> None:
    signed_in(file)
    file.path.chmod(mode)
    for command in ("whoami", "logout", "profile list"):
        done = script.run(command)
        assert done.code == 1
        assert "chmod 600" in one_line(done)


def test_a_file_that_is_not_what_was_written_is_told_and_not_overwritten(
    script: TollwayScript, file: CredentialsFile
) -> None:
    signed_in(file)
    for content in ("", "{", "[]", '{"version": 2}', '{"version": 1, "current": "x", "profiles": {"x": {"odd": 1}}}'):
        file.path.write_text(content)
        for command in ("whoami", "profile list"):
            done = script.run(command)
            assert done.code == 1
            assert "not what was written" in one_line(done)
        assert file.path.read_text() == content


def test_what_is_written_is_read_again(file: CredentialsFile) -> None:
    profiles = Profiles().with_profile(
        "a", Profile(address=ADDRESS, token="t", expire_time=in_minutes(1), addresses={"metering": "m:1"})
    )
    with file.locked():
        file.write(profiles)
    assert file.read() == profiles
    assert list(file.path.parent.glob("*.new")) == []


def test_the_file_lies_where_xdg_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for environment, where in (
        ({}, ".config/tollway/credentials.json"),
        ({"XDG_CONFIG_HOME": "relative"}, ".config/tollway/credentials.json"),
        ({"XDG_CONFIG_HOME": str(tmp_path / "x")}, "x/tollway/credentials.json"),
        ({"TOLLWAY_CREDENTIALS_FILE": str(tmp_path / "c")}, "c"),
    ):
        assert CredentialsFile.of(environment).path == tmp_path / where


# --- renewing


def test_an_old_session_is_renewed_before_the_call_and_its_tokens_are_kept(
    script: TollwayScript, file: CredentialsFile
) -> None:
    signed_in(file, minutes=0.2)
    done = script.run("whoami", ("RefreshSession", session("new", "refresh 2")), ("GetMe", me()))
    assert (done.code, done.calls[0].request.refresh_token) == (0, "refresh")
    assert "authorization" not in done.calls[0].metadata
    assert done.calls[1].metadata["authorization"] == "Bearer new"
    kept = file.read().by_name["default"]
    assert (kept.token, kept.refresh_token) == ("new", "refresh 2")


def test_a_token_that_is_refused_is_renewed_once(script: TollwayScript, file: CredentialsFile) -> None:
    signed_in(file)
    done = script.run("whoami", ("GetMe", CredentialsInvalid()), ("RefreshSession", session("new")), ("GetMe", me()))
    assert (done.code, done.calls[2].metadata["authorization"]) == (0, "Bearer new")
    done = script.run(
        "whoami",
        ("GetMe", CredentialsInvalid()),
        ("RefreshSession", session("newer")),
        ("GetMe", CredentialsInvalid()),
    )
    assert (done.code, done.unanswered) == (3, [])


def test_a_session_that_has_ended_says_so(script: TollwayScript, file: CredentialsFile) -> None:
    signed_in(file, minutes=-1)
    done = script.run("whoami", ("RefreshSession", RefreshRefused()))
    assert done.code == 3
    assert "tollway login" in one_line(done)


def test_a_service_accounts_token_is_never_renewed(script: TollwayScript, file: CredentialsFile) -> None:
    signed_in(file, token=TOKEN, refresh_token="", minutes=-1)
    done = script.run("whoami", ("GetMe", CredentialsInvalid()))
    assert (done.code, len(done.calls)) == (3, 1)


# --- where, and who


def test_a_profiles_token_goes_to_no_other_address(script: TollwayScript, file: CredentialsFile) -> None:
    signed_in(file)
    done = script.run("whoami --address evil.test:443")
    assert done.code == 3
    assert "nobody is signed in at evil.test:443" in one_line(done)
    assert script.opened == []
    done = script.run(f"whoami --address evil.test:443 --token {TOKEN}", ("GetMe", me()))
    assert (done.calls[0].metadata["authorization"], script.opened) == (
        f"Bearer {TOKEN}",
        [("auth", "evil.test:443")],
    )


def test_a_token_of_the_environment_comes_before_a_profile(
    script: TollwayScript, file: CredentialsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed_in(file)
    monkeypatch.setenv("TOLLWAY_TOKEN", TOKEN)
    done = script.run("whoami", ("GetMe", me()))
    assert (done.calls[0].metadata["authorization"], script.opened) == (f"Bearer {TOKEN}", [("auth", ADDRESS)])


def stack_file(folder: Path) -> None:
    services = ("auth", "ratelimit", "metering", "billing", "notification")
    described = {
        "version": 1,
        "services": {name: {"address": f"127.0.0.1:{at}"} for at, name in enumerate(services, start=1)},
        "service_account_token": TOKEN,
        "operator": {"id": OTHER},
    }
    folder.mkdir(exist_ok=True)
    (folder / "stack.json").write_text(json.dumps(described))


def test_a_running_stack_is_asked_where_nobody_is_signed_in_or_it_is_named(
    script: TollwayScript, file: CredentialsFile, tmp_path: Path
) -> None:
    assert script.run("whoami").code == 3
    stack_file(tmp_path / "var")
    done = script.run("service-account list -q", ("ListServiceAccounts", pb.ListServiceAccountsResponse()))
    assert (done.calls[0].metadata["authorization"], done.calls[0].request.organization_id) == (
        f"Bearer {TOKEN}",
        OTHER,
    )
    signed_in(file)
    assert script.run("whoami", ("GetMe", me())).calls[0].metadata["authorization"] == "Bearer access"
    done = script.run("whoami --data-dir var", ("GetMe", me()))
    assert done.calls[0].metadata["authorization"] == f"Bearer {TOKEN}"


def test_login_finds_the_running_stack_and_keeps_all_its_addresses(
    script: TollwayScript, file: CredentialsFile, tmp_path: Path
) -> None:
    stack_file(tmp_path / "var")
    done = script.run("login --email ada@acme.example", ("CreateSession", session()), input="secret pass\n")
    assert done.code == 0
    assert file.read().by_name["default"].addresses["metering"] == "127.0.0.1:3"
    letters = metering_service_pb2.ListDeadLettersResponse()
    done = script.run("events dead-letters list", ("ListDeadLetters", letters))
    assert (done.code, done.calls[0].metadata["authorization"]) == (0, "Bearer access")
    assert script.opened[-1] == ("metering", "127.0.0.1:3")


def test_without_an_address_login_says_what_is_missing(script: TollwayScript) -> None:
    done = script.run("login --email a@b.example")
    assert done.code == 2
    assert "--address" in one_line(done)


# --- how commands end


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (RoleInsufficient(metadata={"permission": "KEYS_READ"}), 1, "PERMISSION_DENIED ROLE_INSUFFICIENT"),
        (
            InvalidFields(violations=[FieldViolation(field="service_account_id", description="must be a UUID")]),
            2,
            "service_account_id must be a UUID",
        ),
        (CredentialsInvalid(), 3, "CREDENTIALS_INVALID"),
        (grpc.StatusCode.UNAVAILABLE, 4, f"auth at {ADDRESS} answers UNAVAILABLE"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 4, "DEADLINE_EXCEEDED"),
        (ServiceAccountNotFound(), 5, "SERVICE_ACCOUNT_NOT_FOUND"),
        (ServiceAccountLimitReached(metadata={"service_accounts_max": "9"}), 6, "service_accounts_max 9"),
        (grpc.StatusCode.INTERNAL, 1, "INTERNAL"),
    ],
)
def test_a_refusal_is_one_line_with_its_reason_and_the_request(
    script: TollwayScript, file: CredentialsFile, answer: Any, code: int, said: str
) -> None:
    signed_in(file, token=TOKEN, refresh_token="")
    done = script.run("service-account show x --json", ("GetServiceAccount", answer))
    assert (done.code, done.out) == (code, "")
    assert said in one_line(done)
    assert f"request {done.calls[0].metadata['x-request-id']}" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        "service-account create",
        "service-account create x --role king",
        "service-account create x --expires-in soon",
        "service-account create x --expires-in 1d --expire-time 2030-01-01",
        "service-account create x --expire-time 2030-13-01",
        "service-account update x",
        "apikey update x",
        "org update",
        "org create x --external-id y",
        "org create x --metadata y",
        "user sessions revoke",
        "user sessions revoke x --others",
        "user list --limit 0",
        "nothing",
    ],
)
def test_a_wrong_command_line_asks_nobody(script: TollwayScript, file: CredentialsFile, arguments: str) -> None:
    signed_in(file)
    done = script.run(arguments)
    assert (done.code, done.calls) == (2, [])


def test_every_command_has_its_own_request_id_and_idempotency_key(script: TollwayScript, file: CredentialsFile) -> None:
    signed_in(file)
    created = pb.CreateServiceAccountResponse(service_account=machine(), token=TOKEN)
    made = [script.run("service-account create ci", ("CreateServiceAccount", created)).calls[0] for _ in range(2)]
    assert len({call.request.idempotency_key for call in made}) == 2
    assert len({call.metadata["x-request-id"] for call in made}) == 2
    done = script.run("service-account create ci --idempotency-key k", ("CreateServiceAccount", created))
    assert done.calls[0].request.idempotency_key == "k"


# --- lists


def page(number: int, more: bool) -> pb.ListServiceAccountsResponse:
    return pb.ListServiceAccountsResponse(
        service_accounts=[machine(name=f"n{number}")], next_page_token=f"p{number}" if more else ""
    )


def test_a_list_is_a_table_json_lines_or_ids(script: TollwayScript, file: CredentialsFile) -> None:
    signed_in(file)
    answer = ("ListServiceAccounts", page(1, more=False))
    heading, row = script.run("service-account list", answer).out.splitlines()
    assert heading.split()[:3] == ["ID", "NAME", "ROLE"]
    assert row.split()[:3] == [OTHER, "n1", "admin"]
    assert heading.index("ROLE") == row.index("admin")
    (line,) = script.run("service-account list --json", answer).out.splitlines()
    assert (json.loads(line)["name"], json.loads(line)["creator_id"]) == ("n1", "")
    assert script.run("service-account list -q", answer).out == f"{OTHER}\n"
    empty = script.run("service-account list", ("ListServiceAccounts", pb.ListServiceAccountsResponse()))
    assert (empty.code, empty.out, empty.err) == (0, "", "There are no service accounts.\n")


def test_pages_are_followed_up_to_the_limit_or_to_the_end(script: TollwayScript, file: CredentialsFile) -> None:
    signed_in(file)
    pages = [("ListServiceAccounts", page(number, more=number < 3)) for number in (1, 2, 3)]
    done = script.run("service-account list --all --json", *pages)
    assert [json.loads(line)["name"] for line in done.out.splitlines()] == ["n1", "n2", "n3"]
    assert [call.request.page_token for call in done.calls] == ["", "p1", "p2"]
    assert {call.request.page_size for call in done.calls} == {100}
    done = script.run("service-account list --limit 2 -q", *pages[:2])
    assert (done.code, [call.request.page_size for call in done.calls]) == (0, [2, 1])


def test_nothing_in_a_table_moves_the_cursor(script: TollwayScript, file: CredentialsFile) -> None:
    signed_in(file)
    member = pb.Member(person_id=PERSON, email="x@x.example", name="\x1b[2J\x1b]0;pwned\x07\n\r\u202e")
    done = script.run("user list", ("ListMembers", pb.ListMembersResponse(members=[member])))
    assert "\x1b" not in done.out
    assert "\u202e" not in done.out
    assert len(done.out.splitlines()) == 2
    shown = script.run("user list --json", ("ListMembers", pb.ListMembersResponse(members=[member])))
    assert len(shown.out.splitlines()) == 1
    assert json.loads(shown.out)["name"] == member.name


# --- organizations by name, members by address


@pytest.mark.parametrize("name", ["Other Ltd", "other ltd", OTHER])
def test_an_organization_is_named_by_id_or_name(script: TollwayScript, file: CredentialsFile, name: str) -> None:
    signed_in(file)
    steps: list[Any] = [] if name == OTHER else [("GetMe", me())]
    done = script.run(["user", "list", "--organization", name], *steps, ("ListMembers", pb.ListMembersResponse()))
    assert done.calls[-1].request.organization_id == OTHER


def test_a_name_that_is_unknown_or_shared_is_told(script: TollwayScript, file: CredentialsFile) -> None:
    signed_in(file)
    done = script.run("user list --organization nowhere", ("GetMe", me()))
    assert done.code == 5
    assert "no organization called 'nowhere'" in one_line(done)
    twins = pb.ListOrganizationsResponse(
        organizations=[
            pb.Organization(organization_id=PERSON, name="ACME"),
            pb.Organization(organization_id=OTHER, name="Acme Holding"),
        ]
    )
    operator = me(platform_roles=[access_pb2.PLATFORM_ROLE_ADMIN])
    done = script.run("user list --organization acme", ("GetMe", operator), ("ListOrganizations", twins))
    assert done.code == 1
    assert ACME in one_line(done)
    assert PERSON in done.err
    assert OTHER not in done.err


def test_a_member_is_named_by_id_or_address(script: TollwayScript, file: CredentialsFile) -> None:
    signed_in(file)
    members = pb.ListMembersResponse(members=[pb.Member(person_id=PERSON, email="bob@acme.example")])
    changed = pb.Member(person_id=PERSON, email="bob@acme.example", role=access_pb2.ROLE_ADMIN)
    done = script.run("user role Bob@acme.example admin", ("ListMembers", members), ("ChangeMemberRole", changed))
    assert (done.calls[1].request.person_id, done.calls[1].request.role) == (PERSON, access_pb2.ROLE_ADMIN)
    done = script.run(f"user remove {PERSON} --yes", ("RemoveMember", pb.RemoveMemberResponse()))
    assert (done.code, done.calls[0].request.person_id) == (0, PERSON)
    assert script.run("user role eve@acme.example admin", ("ListMembers", members)).code == 5


@pytest.mark.parametrize(
    "command", [f"user remove {PERSON}", f"apikey revoke {PERSON}", f"service-account revoke {PERSON}"]
)
def test_what_cannot_be_taken_back_asks_first(script: TollwayScript, file: CredentialsFile, command: str) -> None:
    signed_in(file)
    for answer in ("n\n", "\n", ""):
        done = script.run(command, input=answer)
        assert (done.code, done.calls) == (1, [])


# --- organizations


def test_the_commands_of_an_organizations_life(script: TollwayScript, file: CredentialsFile) -> None:
    signed_in(file)
    acme = pb.Organization(organization_id=ACME, name="Acme", state=pb.ORGANIZATION_STATE_ACTIVE)
    done = script.run(
        "org create Acme --currency EUR --time-zone Europe/Berlin --metadata tier=gold --metadata a=b=c",
        ("CreateOrganization", acme),
    )
    request = done.calls[0].request
    assert (request.name, request.currency_code, dict(request.metadata)) == (
        "Acme",
        "EUR",
        {"tier": "gold", "a": "b=c"},
    )
    done = script.run("org create Acme --owner-email o@acme.example --external-id 7", ("ProvisionOrganization", acme))
    assert (done.calls[0].request.owner_email, done.calls[0].request.external_id) == ("o@acme.example", "7")
    done = script.run(f"org update {ACME} --name New --time-zone UTC", ("UpdateOrganization", acme))
    assert list(done.calls[0].request.update_mask.paths) == ["name", "time_zone"]
    for verb, rpc in (("suspend", "SuspendOrganization"), ("resume", "ResumeOrganization")):
        done = script.run(["org", verb, ACME, "--reason", "unpaid"], (rpc, acme))
        assert (done.code, done.calls[0].request.reason) == (0, "unpaid")
    done = script.run(f"org delete {ACME}", ("DeleteOrganization", acme), input="Acme\n")
    assert (done.code, done.calls[0].request.name) == (0, "Acme")
    done = script.run("org show", ("GetOrganization", acme))
    assert done.calls[0].request.organization_id == ACME
    assert "active" in done.out


def test_members_see_their_organizations_and_operators_all(script: TollwayScript, file: CredentialsFile) -> None:
    signed_in(file)
    assert script.run("org list -q", ("GetMe", me())).out.split() == [ACME, OTHER]
    operator = me(platform_roles=[access_pb2.PLATFORM_ROLE_SUPPORT])
    everybody = pb.ListOrganizationsResponse(organizations=[pb.Organization(organization_id=PERSON, name="X")])
    done = script.run("org list --state suspended -q", ("GetMe", operator), ("ListOrganizations", everybody))
    assert (done.out, done.calls[1].request.state) == (f"{PERSON}\n", pb.ORGANIZATION_STATE_SUSPENDED)
    assert script.run("org list --mine -q", ("GetMe", operator)).out.split() == [ACME, OTHER]


def test_switching_keeps_the_new_tokens(script: TollwayScript, file: CredentialsFile) -> None:
    signed_in(file)
    moved = session("moved", "refresh 2", organization_id=OTHER)
    done = script.run(["org", "switch", "Other Ltd"], ("GetMe", me()), ("SwitchOrganization", moved))
    assert (done.code, done.calls[1].metadata["authorization"]) == (0, "Bearer access")
    kept = file.read().by_name["default"]
    assert (kept.token, kept.refresh_token, kept.organization_id) == ("moved", "refresh 2", OTHER)
    assert script.run(f"org switch {OTHER} --address x.test:1 --token {TOKEN}").code == 3


def test_the_audit_log_is_filtered_and_exported_whole_or_not_at_all(
    script: TollwayScript, file: CredentialsFile, tmp_path: Path
) -> None:
    signed_in(file)
    entry = pb.AuditEntry(audit_entry_id=OTHER, action="api_key.create", actor=PERSON, actor_kind="person")
    answer = pb.ListAuditEntriesResponse(audit_entries=[entry])
    done = script.run(
        "org audit list --action api_key.* --since 2026-01-01 --until 2026-02-01T00:00:00+01:00",
        ("ListAuditEntries", answer),
    )
    wanted = done.calls[0].request.filter
    assert (wanted.action, wanted.start_time.ToJsonString(), wanted.end_time.ToJsonString()) == (
        "api_key.*",
        "2026-01-01T00:00:00Z",
        "2026-01-31T23:00:00Z",
    )
    assert f"person {PERSON}" in done.out
    parts = [pb.ExportAuditEntriesResponse(content=part) for part in (b"{}\n", b"{}\n")]
    done = script.run("org audit export", ("ExportAuditEntries", parts))
    assert (done.code, done.out) == (0, "{}\n{}\n")
    target = tmp_path / "audit.csv"
    done = script.run(f"org audit export --format csv --output {target}", ("ExportAuditEntries", parts))
    assert (done.calls[0].request.format, target.read_text()) == (pb.AUDIT_EXPORT_FORMAT_CSV, "{}\n{}\n")
    done = script.run(
        f"org audit export --output {tmp_path / 'half'}", ("ExportAuditEntries", grpc.StatusCode.UNAVAILABLE)
    )
    assert (done.code, list(tmp_path.glob("half*"))) == (4, [])


# --- people


def test_people_are_invited_and_invitations_looked_after(script: TollwayScript, file: CredentialsFile) -> None:
    signed_in(file)
    invited = pb.Invitation(invitation_id=OTHER, email="b@x.example", state=pb.INVITATION_STATE_PENDING)
    done = script.run("user invite b@x.example --role admin -q", ("InviteMember", invited))
    assert (done.out, done.calls[0].request.role) == (f"{OTHER}\n", access_pb2.ROLE_ADMIN)
    for verb, rpc in (("cancel", "CancelInvitation"), ("resend", "ResendInvitation")):
        done = script.run(f"user invitation {verb} {OTHER}", (rpc, invited))
        assert (done.code, done.calls[0].request.invitation_id) == (0, OTHER)
    answer = pb.ListInvitationsResponse(invitations=[invited])
    done = script.run("user invitation list --state declined", ("ListInvitations", answer))
    assert done.calls[0].request.state == pb.INVITATION_STATE_DECLINED
    mine = pb.ListMyInvitationsResponse(invitations=[invited])
    assert script.run("user invitation list --mine -q", ("ListMyInvitations", mine)).out == f"{OTHER}\n"
    done = script.run(f"user invitation accept {OTHER} -q", ("AcceptInvitation", pb.Membership(organization_id=ACME)))
    assert done.out == f"{ACME}\n"


def test_sessions_are_listed_and_ended(script: TollwayScript, file: CredentialsFile) -> None:
    signed_in(file)
    answer = pb.ListSessionsResponse(sessions=[pb.Session(session_id=OTHER, current=True, address="192.0.2.1")])
    assert "192.0.2.1" in script.run("user sessions list", ("ListSessions", answer)).out
    done = script.run(f"user sessions revoke {OTHER}", ("RevokeSession", pb.RevokeSessionResponse()))
    assert done.calls[0].request.session_id == OTHER
    done = script.run("user sessions revoke --others", ("RevokeAllSessions", pb.RevokeAllSessionsResponse()))
    assert done.calls[0].request.keep_current


def test_what_is_stored_about_a_person_is_for_nobody_else(
    script: TollwayScript, file: CredentialsFile, tmp_path: Path
) -> None:
    signed_in(file)
    answer = pb.ExportPersonResponse(export_json='{"a": 1}')
    assert script.run("user export", ("ExportMe", answer)).out == '{"a": 1}\n'
    target = tmp_path / "me.json"
    assert script.run(f"user export {PERSON} --output {target}", ("ExportPerson", answer)).code == 0
    assert (target.read_text(), stat.S_IMODE(target.stat().st_mode)) == ('{"a": 1}\n', 0o600)
    done = script.run(
        "user erase --yes --password-stdin --code 123456", ("EraseMe", pb.ErasePersonResponse()), input="pw\n"
    )
    assert (done.calls[0].request.password, done.calls[0].request.second_factor_code) == ("pw", "123456")
    done = script.run(
        ["user", "erase", PERSON, "--reason", "asked for", "--yes"], ("ErasePerson", pb.ErasePersonResponse())
    )
    assert (done.calls[0].request.person_id, done.calls[0].request.reason) == (PERSON, "asked for")


# --- service accounts and keys


def test_a_secret_is_shown_once_and_alone_with_quiet(script: TollwayScript, file: CredentialsFile) -> None:
    signed_in(file)
    created = pb.CreateServiceAccountResponse(service_account=machine(), token=TOKEN)
    answer = ("CreateServiceAccount", created)
    arguments = "service-account create ci --role admin --expires-in 30d"
    done = script.run(arguments, answer)
    request = done.calls[0].request
    assert (request.organization_id, request.name, request.role) == (ACME, "ci", access_pb2.ROLE_ADMIN)
    ends = request.expire_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < ends <= timedelta(days=30)
    assert done.out.count(TOKEN) == 1
    assert "this once" in done.err
    assert script.run(f"{arguments} -q", answer).out == f"{TOKEN}\n"
    assert json.loads(script.run(f"{arguments} --json", answer).out)["token"] == TOKEN
    key = pb.CreateApiKeyResponse(api_key=pb.ApiKey(api_key_id=OTHER), secret="sk_live_x")
    assert script.run("apikey create web -q", ("CreateApiKey", key)).out == "sk_live_x\n"


def test_service_accounts_are_changed_rotated_and_revoked(script: TollwayScript, file: CredentialsFile) -> None:
    signed_in(file)
    done = script.run(f"service-account update {OTHER} --name cd --role member", ("UpdateServiceAccount", machine()))
    assert list(done.calls[0].request.update_mask.paths) == ["name", "role"]
    created = pb.CreateServiceAccountResponse(service_account=machine(), token=TOKEN)
    done = script.run(f"service-account rotate {OTHER} --overlap 12h -q", ("RotateServiceAccount", created))
    assert (done.out, done.calls[0].request.overlap.seconds) == (f"{TOKEN}\n", 12 * 3_600)
    done = script.run(f"service-account rotate {OTHER} -q", ("RotateServiceAccount", created))
    assert not done.calls[0].request.HasField("overlap")
    assert script.run(f"service-account revoke {OTHER} -y", ("RevokeServiceAccount", machine())).code == 0
    operators = ("CreateServiceAccount", created)
    done = script.run("service-account create x --platform-role support", operators)
    assert done.calls[0].request.platform_role == access_pb2.PLATFORM_ROLE_SUPPORT


def test_keys_are_created_listed_changed_and_rotated(script: TollwayScript, file: CredentialsFile) -> None:
    signed_in(file)
    key = pb.ApiKey(api_key_id=OTHER, name="web", scopes=["a", "b"])
    created = pb.CreateApiKeyResponse(api_key=key, secret="sk_live_x")
    done = script.run(
        "apikey create web --mode test --scope a --scope b --allow-ip 192.0.2.0/24 --subject u1",
        ("CreateApiKey", created),
    )
    request = done.calls[0].request
    assert (request.mode, list(request.scopes), list(request.allowed_ips), request.external_subject) == (
        pb.KEY_MODE_TEST,
        ["a", "b"],
        ["192.0.2.0/24"],
        "u1",
    )
    listed = pb.ListApiKeysResponse(api_keys=[key])
    done = script.run(f"apikey list --mode live --usable --creator {PERSON}", ("ListApiKeys", listed))
    request = done.calls[0].request
    assert (request.mode, request.usable_only, request.creator_id) == (pb.KEY_MODE_LIVE, True, PERSON)
    done = script.run(["apikey", "update", OTHER, "--scope", "", "--subject", ""], ("UpdateApiKey", key))
    request = done.calls[0].request
    assert (sorted(request.update_mask.paths), list(request.api_key.scopes)) == (["external_subject", "scopes"], [])
    done = script.run(f"apikey rotate {OTHER} --overlap 1d -q", ("RotateApiKey", created))
    assert (done.out, done.calls[0].request.overlap.seconds) == ("sk_live_x\n", 86_400)
    assert script.run(f"apikey revoke {OTHER} -y", ("RevokeApiKey", key)).code == 0
    assert "web" in script.run(f"apikey show {OTHER}", ("GetApiKey", key)).out


def test_plain_keys_are_hashed_here_and_never_sent(
    script: TollwayScript, file: CredentialsFile, tmp_path: Path
) -> None:
    signed_in(file)
    source = tmp_path / "keys.csv"
    with source.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["key", "name", "scopes", "mode", "expire_time"])
        writer.writerow(["acme_live_1", "one, two", "a b", "test", "2030-01-01T00:00:00Z"])
        writer.writerow(["acme_live_2", "three", "", "", ""])
    answer = pb.ImportApiKeysResponse(api_keys=[pb.ApiKey(api_key_id=OTHER), pb.ApiKey(api_key_id=PERSON)])
    done = script.run(f"apikey import {source} --key-prefix acme_live_ -q", ("ImportApiKeys", answer))
    assert done.out.split() == [OTHER, PERSON]
    one, two = done.calls[0].request.api_keys
    assert one.sha256 == hashlib.sha256(b"acme_live_1").digest()
    assert (one.name, list(one.scopes), one.mode, one.key_prefix) == (
        "one, two",
        ["a", "b"],
        pb.KEY_MODE_TEST,
        "acme_live_",
    )
    assert (two.mode, two.HasField("expire_time")) == (pb.KEY_MODE_LIVE, False)
    assert b"acme_live_1" not in done.calls[0].request.SerializeToString()


def test_hashes_come_from_json_and_json_lines_too(script: TollwayScript, file: CredentialsFile, tmp_path: Path) -> None:
    signed_in(file)
    row = {"sha256": "ab" * 32, "name": "n", "key_prefix": "acme_", "allowed_ips": ["192.0.2.1/32"]}
    (tmp_path / "k.json").write_text(json.dumps([row]))
    (tmp_path / "k.jsonl").write_text(json.dumps(row) + "\n\n")
    (tmp_path / "k").write_text(json.dumps([row]))
    for arguments in ("k.json", "k.jsonl", "k --format json"):
        done = script.run(f"apikey import {arguments}", ("ImportApiKeys", pb.ImportApiKeysResponse()))
        (key,) = done.calls[0].request.api_keys
        assert (key.sha256, list(key.allowed_ips)) == (bytes.fromhex("ab" * 32), ["192.0.2.1/32"])
    assert script.run("apikey import k").code == 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"name": "n"}, "give sha256, or key"),
        ({"sha256": "ab" * 32, "key": "k"}, "not both"),
        ({"sha256": "ab"}, "64 hex digits"),
        ({"sha256": "zz" * 32}, "64 hex digits"),
        ({"key": "other_1", "key_prefix": "acme_"}, "does not begin with its key_prefix"),
        ({"key": "acme_1", "mode": "prod"}, "mode must be live or test"),
        ({"key": "acme_1", "expire_time": "soon"}, "ISO 8601"),
        ({"key": "acme_1", "colour": "red"}, "unknown: colour"),
        ({"sha256": 7}, "line 1"),
        ("text", "no object"),
    ],
)
def test_a_wrong_row_is_named_before_anything_is_sent(
    script: TollwayScript, file: CredentialsFile, tmp_path: Path, row: Any, said: str
) -> None:
    signed_in(file)
    (tmp_path / "k.json").write_text(json.dumps([row]))
    done = script.run("apikey import k.json")
    assert (done.code, done.calls) == (2, [])
    assert said in one_line(done)
    for content in ("{", '{"a": 1}', "\udcff"):
        (tmp_path / "k.json").write_bytes(content.encode(errors="surrogateescape"))
        assert script.run("apikey import k.json").code == 2


def test_a_thousand_keys_at_a_time_with_keys_that_can_be_repeated(
    script: TollwayScript, file: CredentialsFile, tmp_path: Path
) -> None:
    signed_in(file)
    rows = [{"key": f"acme_{number}", "name": "n"} for number in range(1_500)]
    (tmp_path / "k.json").write_text(json.dumps(rows))
    answer = ("ImportApiKeys", pb.ImportApiKeysResponse())
    arguments = "apikey import k.json --key-prefix acme_ --idempotency-key again"
    done = script.run(arguments, answer, answer)
    assert [(len(call.request.api_keys), call.request.idempotency_key) for call in done.calls] == [
        (1_000, "again-0"),
        (500, "again-1000"),
    ]


def test_a_shell_learns_to_complete(script: TollwayScript) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_TOLLWAY_COMPLETE" in script.run(f"completion {shell}").out
