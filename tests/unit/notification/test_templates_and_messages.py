"""Templates are filled in exactly, and no value gets out of its place."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.rpc.errors import InvalidFields, Violations
from services.notification.mailer import SmtpServer, parse_smtp_url
from services.notification.message import build_message, parse_mailbox
from services.notification.model import Email
from services.notification.templating import VALUE_LENGTH_MAX, Templates, load_templates, parse_template

# What the services that send them promise to say: a template that asks for more or less is refused at run time only.
SAID = {
    "already_registered": {"link"},
    "api_keys_imported": {"organization_name", "count", "prefixes", "create_time"},
    "api_key_created": {"organization_name", "key_name", "hint", "create_time"},
    "email_change": {"link", "token", "expire_time"},
    "email_change_requested": {"new_email", "time", "address", "link"},
    "email_changed": {"new_email", "time", "address"},
    "invitation": {"organization_name", "inviter_name", "role", "link", "token", "expire_time"},
    "member_joined": {"organization_name", "email"},
    "member_removed": {"organization_name"},
    "organization_resumed": {"organization_name"},
    "organization_suspended": {"organization_name", "reason"},
    "password_changed": {"time", "address", "link"},
    "password_reset": {"link", "token", "expire_time"},
    "recovery_code_used": {"time", "address", "left_count", "link"},
    "recovery_codes_replaced": {"time", "address", "link"},
    "role_changed": {"organization_name", "role"},
    "second_factor_disabled": {"time", "address", "link"},
    "second_factor_enabled": {"time", "address", "link"},
    "session_reuse": {"person_name", "time", "address"},
    "verify_email": {"link", "token", "expire_time"},
}
NAMES = ("organization_name", "key_name", "hint", "create_time")
TEMPLATES = load_templates()
printable = st.text(max_size=80).filter(str.isprintable)


def violations_of(name: str, parameters: dict[str, str]) -> list[str]:
    violations = Violations()
    TEMPLATES.check(violations, name, parameters)
    try:
        violations.raise_if_any()
    except InvalidFields as error:
        return sorted(violation.field for violation in error.violations)
    return []


@given(st.fixed_dictionaries(dict.fromkeys(NAMES, printable)))
def test_any_value_survives_the_way_over_the_wire(parameters: dict[str, str]) -> None:
    assert violations_of("api_key_created", parameters) == []
    rendered = TEMPLATES.render("api_key_created", parameters)
    email = Email(
        email_id=UUID(int=7),
        organization_id=UUID(int=1),
        recipient="a@acme.example",
        template="api_key_created",
        parameters=parameters,
    )
    message = build_message(email, rendered, mail_from="T <t@tollway.example>", now=datetime(2024, 1, 1, tzinfo=UTC))
    received = message_from_bytes(message.as_bytes(), policy=default)
    assert received["Message-ID"] == f"<{UUID(int=7)}@tollway.example>"
    assert received["To"] == "a@acme.example"
    text = received.get_body(("plain",)).get_content()
    assert parameters["key_name"] in text
    assert received.get_body(("html",)).get_content().count("<table") == 1


def test_the_templates_ask_for_what_their_senders_say() -> None:
    assert {name: set(template.placeholders) for name, template in TEMPLATES.by_name.items()} == SAID


@pytest.mark.parametrize("name", sorted(SAID))
def test_text_and_twin_say_the_same(name: str) -> None:
    template = TEMPLATES.by_name[name]
    assert set(template.html.get_identifiers()) == template.placeholders
    rendered = TEMPLATES.render(name, {value: f"<{value}>" for value in template.placeholders})
    for value in template.placeholders:
        assert f"<{value}>" in rendered.subject + rendered.text
        assert f"&lt;{value}&gt;" in rendered.html


def test_a_token_is_the_fragment_of_the_link_so_that_no_server_is_told_it() -> None:
    for name, says in SAID.items():
        if "token" in says:
            rendered = TEMPLATES.render(name, {**dict.fromkeys(says, "x"), "link": "https://d.example/p", "token": "T"})
            assert "https://d.example/p#token=T\n" in rendered.text
            assert '<a href="https://d.example/p#token=T">' in rendered.html


def test_every_missing_unknown_and_wrong_parameter_is_named() -> None:
    parameters = {"key_name": "two\nlines", "hint": "x" * (VALUE_LENGTH_MAX + 1), "colour": "red"}
    assert violations_of("api_key_created", parameters) == [
        "parameters.colour",
        "parameters.create_time",
        "parameters.hint",
        "parameters.key_name",
        "parameters.organization_name",
    ]
    assert violations_of("no_such_template", {}) == ["template"]


def test_markup_in_a_value_stays_text() -> None:
    template = parse_template("t", "Subject: s ${a}\n\n${a}", "<p>${a}</p>")
    rendered = Templates({"t": template}).render("t", {"a": "<script>&"})
    assert rendered.html == "<p>&lt;script&gt;&amp;</p>"
    assert (rendered.text, rendered.subject) == ("<script>&", "s <script>&")


@pytest.mark.parametrize(
    ("text", "html"),
    [("no subject", "x"), ("Subject: s\n\n${", "x"), ("Subject: s\n\nx", "${more}"), ("Subject: s\n\nx", "$")],
)
def test_a_broken_template_is_refused_at_the_start(text: str, html: str) -> None:
    with pytest.raises(ValueError, match="t"):
        parse_template("t", text, html)


@pytest.mark.parametrize("text", ["", "a", "a@", "@b", "a@b@c", "a@b\n", "a@b.example, c@d.example"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be an e-mail address"):
        parse_mailbox(text)


def test_a_mailbox_may_have_a_name() -> None:
    assert parse_mailbox("Tollway <no-reply@tollway.example>").addr_spec == "no-reply@tollway.example"


def test_mail_servers_are_named_by_url() -> None:
    assert parse_smtp_url("smtps://user:p%40ss@mail.example") == SmtpServer(
        host="mail.example", port=465, tls=True, username="user", password="p@ss"
    )
    assert parse_smtp_url("smtp://127.0.0.1:1025").port == 1025
    for url in ("http://mail.example", "smtp://", "mail.example"):
        with pytest.raises(ValueError, match="smtp"):
            parse_smtp_url(url)
