"""What the database itself says about tenants: asked of its catalog, so that no new table can be forgotten."""

import asyncpg
import pytest

from contract.services import SERVICES

SCHEMAS = list(SERVICES)
ROLES = [f"tollway_{service}{suffix}" for service in SERVICES for suffix in ("", "_system")]

TABLES = """
SELECT n.nspname AS schema, c.relname AS name, c.relkind::text AS kind, c.relispartition AS is_partition,
       c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced, pg_get_userbyid(c.relowner) AS owner,
       coalesce(obj_description(c.oid), '') AS comment,
       EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'organization_id'
               AND a.attnotnull AND a.atttypid = 'uuid'::regtype) AS has_tenant,
       ARRAY(SELECT p.polname::text FROM pg_policy p WHERE p.polrelid = c.oid AND p.polqual IS NOT NULL) AS policies,
       ARRAY(SELECT DISTINCT g.grantee::regrole::text FROM aclexplode(c.relacl) g
             WHERE g.grantee <> c.relowner) AS grantees
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p')
ORDER BY 1, 2
"""


@pytest.fixture
async def admin(database):
    connection = await asyncpg.connect(database.dsn("admin"))
    yield connection
    await connection.close()


@pytest.fixture
async def tables(admin):
    tables = await admin.fetch(TABLES, SCHEMAS)
    assert {t["schema"] for t in tables} == set(SCHEMAS)
    return tables


def named(tables):
    return [f"{t['schema']}.{t['name']}" for t in tables]


async def test_every_table_has_a_tenant_or_says_why_not(tables):
    silent = [
        t
        for t in tables
        if not t["has_tenant"] and not t["is_partition"] and not t["comment"].startswith("not a tenant table: ")
    ]
    assert named(silent) == []
    contradicting = [t for t in tables if t["has_tenant"] and t["comment"].startswith("not a tenant table: ")]
    unguarded = [t for t in contradicting if not t["comment"].split(": ", 1)[1].strip()]
    assert named(unguarded) == []


def is_tenant_table(table):
    return table["has_tenant"] and not table["comment"].startswith("not a tenant table: ")


async def test_every_tenant_table_forces_row_security_with_a_policy(tables):
    tenant_tables = [t for t in tables if is_tenant_table(t) and not t["is_partition"]]
    assert {t["schema"] for t in tenant_tables} == set(SCHEMAS)
    open_tables = [t for t in tenant_tables if not (t["enabled"] and t["forced"] and t["policies"])]
    assert named(open_tables) == []


async def test_no_grant_reaches_past_a_parents_policy(tables):
    granted = [t for t in tables if t["is_partition"] and t["grantees"]]
    assert named(granted) == []


async def test_service_roles_own_nothing_and_bypass_nothing(admin, tables):
    assert {t["owner"] for t in tables} == {"tollway_owner"}
    rows = await admin.fetch(
        "SELECT rolname FROM pg_roles WHERE rolname = ANY($1) AND NOT rolcanlogin"
        " OR rolname = ANY($1) AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication)",
        [*ROLES, "tollway_owner"],
    )
    assert [r["rolname"] for r in rows] == []
    assert await admin.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = ANY($1)", ROLES) == len(ROLES)
    memberships = await admin.fetch(
        "SELECT m.member::regrole::text FROM pg_auth_members m WHERE m.member::regrole::text = ANY($1)", ROLES
    )
    assert memberships == []


async def test_a_service_role_reaches_its_own_schema_alone(admin, tables):
    strangers = [
        (f"{t['schema']}.{t['name']}", grantee)
        for t in tables
        for grantee in t["grantees"]
        if grantee not in {f"tollway_{t['schema']}", f"tollway_{t['schema']}_system"}
    ]
    assert strangers == []
    rows = await admin.fetch(
        "SELECT r.rolname, n.nspname FROM pg_roles r, pg_namespace n"
        " WHERE r.rolname = ANY($1) AND n.nspname = ANY($2)"
        " AND has_schema_privilege(r.oid, n.oid, 'USAGE') AND r.rolname NOT LIKE 'tollway_' || n.nspname || '%'",
        ROLES,
        SCHEMAS,
    )
    assert rows == []


async def test_the_tenant_role_sees_nothing_without_naming_a_tenant(database, tables):
    for service in SCHEMAS:
        connection = await asyncpg.connect(database.dsn(service))
        try:
            # After RESET the setting is the empty string, not NULL: both must mean nobody.
            for prepare in ("SELECT 1", "SET tollway.organization_id = ''", "RESET tollway.organization_id"):
                await connection.execute(prepare)
                for table in tables:
                    mine = table["schema"] == service and is_tenant_table(table) and not table["is_partition"]
                    if mine and f"tollway_{service}" in table["grantees"] and await readable(connection, table):
                        name = f"{table['schema']}.{table['name']}"
                        assert await connection.fetchval(f"SELECT count(*) FROM {name}") == 0, name
        finally:
            await connection.close()


async def readable(connection, table):
    name = f"{table['schema']}.{table['name']}"
    return await connection.fetchval("SELECT has_table_privilege($1, 'SELECT')", name)


async def test_a_tables_indexes_lead_with_the_tenant(admin, tables):
    rows = await admin.fetch(
        """
        SELECT n.nspname || '.' || c.relname AS table_name, i.relname AS index_name, a.attname AS leading,
               coalesce(obj_description(i.oid), '') AS comment
        FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = x.indkey[0]
        WHERE n.nspname = ANY($1) AND NOT c.relispartition
        """,
        SCHEMAS,
    )
    tenants = {f"{t['schema']}.{t['name']}" for t in tables if is_tenant_table(t)}
    wrong = [
        f"{r['table_name']}: {r['index_name']}"
        for r in rows
        if r["table_name"] in tenants
        and r["leading"] != "organization_id"
        and not r["comment"].startswith("across tenants: ")
    ]
    assert wrong == []


# As PostgreSQL writes it back. An extra condition may only narrow it.
TENANT_RULE = "(organization_id = (NULLIF(current_setting('tollway.organization_id'::text, true), ''::text))::uuid)"
POLICIES = """
SELECT n.nspname || '.' || c.relname AS table_name, p.polname AS name,
       pg_get_expr(p.polqual, p.polrelid) AS using, pg_get_expr(p.polwithcheck, p.polrelid) AS with_check
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY($1) AND p.polpermissive
  AND (p.polroles = '{0}' OR ('tollway_' || n.nspname)::regrole = ANY(p.polroles))
"""


def is_held_to_its_tenant(rule):
    return rule == TENANT_RULE or rule.startswith(f"({TENANT_RULE} AND ")


async def test_every_policy_of_a_tenant_role_holds_it_to_its_tenant_in_reading_and_in_writing(admin, tables):
    policies = await admin.fetch(POLICIES, SCHEMAS)
    tenants = {f"{t['schema']}.{t['name']}" for t in tables if is_tenant_table(t) and not t["is_partition"]}
    assert {p["table_name"] for p in policies} >= tenants
    loose = [
        (p["table_name"], p["name"], rule)
        for p in policies
        if p["table_name"] in tenants
        # A policy without WITH CHECK writes by its USING.
        for rule in (p["using"], p["with_check"])
        if rule is not None and not is_held_to_its_tenant(rule)
    ]
    assert loose == []
    assert all(p["using"] or p["with_check"] for p in policies)


async def test_the_tenant_rule_hides_and_refuses_what_is_another_tenants(database):
    mine, theirs = "01900000-0000-7000-8000-00000000000a", "01900000-0000-7000-8000-00000000000b"
    owner = await asyncpg.connect(database.dsn("owner"))
    await owner.execute(
        f"""
        CREATE TABLE billing.probe (organization_id uuid NOT NULL);
        ALTER TABLE billing.probe ENABLE ROW LEVEL SECURITY;
        CREATE POLICY tenant ON billing.probe TO tollway_billing USING {TENANT_RULE} WITH CHECK {TENANT_RULE};
        GRANT SELECT, INSERT, UPDATE ON billing.probe TO tollway_billing;
        INSERT INTO billing.probe VALUES ('{mine}'), ('{theirs}');
        """
    )
    await owner.close()
    tenant = await asyncpg.connect(database.dsn("billing"))
    try:
        await tenant.execute(f"SET tollway.organization_id = '{mine}'")
        assert [str(row[0]) for row in await tenant.fetch("SELECT organization_id FROM probe")] == [mine]
        for statement in ("INSERT INTO probe VALUES ($1)", "UPDATE probe SET organization_id = $1"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await tenant.execute(statement, theirs)
    finally:
        await tenant.close()
