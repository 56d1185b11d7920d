"""Every column that can hold words is marked as personal, or named here as harmless: no new one is forgotten."""

from __future__ import annotations

from typing import Any

import asyncpg

COLUMNS = """
SELECT n.nspname || '.' || c.relname || '.' || a.attname AS name,
       coalesce(col_description(c.oid, a.attnum), '') AS comment
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('auth', 'notification') AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND a.attnum > 0 AND NOT a.attisdropped AND c.relname <> 'schema_migrations'
  AND format_type(a.atttypid, NULL) ~ '^(text|character varying|jsonb|json|bytea|inet|cidr|name|citext)'
ORDER BY 1
"""
# Digests, states, kinds and names of things; ids; what the audit log keeps, whose names and addresses of people are set
# aside; what was written about organizations, keys and service accounts, which are nobody's own; sealed answers that
# hold an id, and what e-mails say, which is sealed and forgotten once it was delivered.
HARMLESS = {
    "auth.api_keys.allowed_ips",
    "auth.api_keys.digest",
    "auth.api_keys.external_subject",
    "auth.api_keys.hint",
    "auth.api_keys.key_prefix",
    "auth.api_keys.mode",
    "auth.api_keys.name",
    "auth.api_keys.scopes",
    "auth.audit_entries.action",
    "auth.audit_entries.action_kind",
    "auth.audit_entries.actor",
    "auth.audit_entries.actor_kind",
    "auth.audit_entries.address",
    "auth.audit_entries.after",
    "auth.audit_entries.before",
    "auth.audit_entries.details",
    "auth.audit_entries.request_id",
    "auth.audit_entries.resource",
    "auth.email_changes.digest",
    "auth.idempotency_keys.idempotency_key",
    "auth.idempotency_keys.method",
    "auth.idempotency_keys.principal",
    "auth.idempotency_keys.request_hash",
    "auth.invitations.digest",
    "auth.invitations.role",
    "auth.invitations.state",
    "auth.jobs.dedupe_key",
    "auth.jobs.kind",
    "auth.jobs.state",
    "auth.jobs.trace_context",
    "auth.memberships.role",
    "auth.organizations.currency_code",
    "auth.organizations.effective_state",
    "auth.organizations.external_id",
    "auth.organizations.metadata",
    "auth.organizations.name",
    "auth.organizations.plan_id",
    "auth.organizations.state",
    "auth.organizations.suspend_reason",
    "auth.organizations.time_zone",
    "auth.password_resets.digest",
    "auth.platform_roles.role",
    "auth.principal_changes.kind",
    "auth.recovery_codes.digest",
    "auth.refresh_tokens.digest",
    "auth.registrations.currency_code",
    "auth.registrations.digest",
    "auth.registrations.time_zone",
    "auth.service_accounts.digest",
    "auth.service_accounts.hint",
    "auth.service_accounts.name",
    "auth.service_accounts.platform_role",
    "auth.service_accounts.previous_digest",
    "auth.service_accounts.role",
    "auth.sessions.revoke_reason",
    "auth.signing_keys.key_id",
    "auth.signing_keys.public_key",
    "auth.signing_keys.seed",
    "notification.emails.parameters",
    "notification.emails.sealed_parameters",
    "notification.emails.state",
    "notification.emails.template",
    "notification.idempotency_keys.idempotency_key",
    "notification.idempotency_keys.method",
    "notification.idempotency_keys.principal",
    "notification.idempotency_keys.request_hash",
    "notification.idempotency_keys.response",
    "notification.jobs.dedupe_key",
    "notification.jobs.kind",
    "notification.jobs.payload",
    "notification.jobs.state",
    "notification.jobs.trace_context",
}


async def test_every_column_that_can_hold_words_is_marked_or_harmless(database: Any) -> None:
    admin = await asyncpg.connect(database.dsn("admin"))
    rows = await admin.fetch(COLUMNS)
    await admin.close()
    personal = {row["name"] for row in rows if row["comment"].startswith("personal: ")}
    assert personal >= {
        "auth.people.email",
        "auth.people.name",
        "auth.sessions.address",
        "notification.emails.recipient",
    }
    others = {row["name"] for row in rows} - personal
    assert others - HARMLESS == set()
    assert HARMLESS - others == set()
