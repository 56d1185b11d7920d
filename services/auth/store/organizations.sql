-- name: select_organization
SELECT organization_id, name, effective_state AS state, external_id, coalesce(contact_email, '') AS contact_email,
       billing_email, currency_code, time_zone, metadata, create_time, plan_id, restricted, suspended, suspend_reason,
       delete_time
FROM organizations
WHERE organization_id = $1

-- name: select_organizations
-- For operators: ids are UUIDv7, so their order is the order of creation and one column carries the page. Few ask, so
-- what does not fit is passed over by a scan.
SELECT organization_id, name, effective_state AS state, external_id, coalesce(contact_email, '') AS contact_email,
       billing_email, currency_code, time_zone, metadata, create_time, plan_id, restricted, suspended, suspend_reason,
       delete_time
FROM organizations
WHERE ($1::uuid IS NULL OR organization_id < $1)
  AND ($2::text = '' OR strpos(lower(name), lower($2)) > 0)
  AND CASE WHEN $3::text = '' THEN effective_state <> 'deleted' ELSE effective_state = $3 END
  AND ($4::text = '' OR external_id = $4)
ORDER BY organization_id DESC
LIMIT $5

-- name: insert_organization
-- Nothing where the contact is another organization's.
INSERT INTO organizations (organization_id, name, external_id, contact_email, billing_email, currency_code, time_zone,
                           metadata, create_time)
VALUES ($1, $2, nullif($3, ''), nullif($4, ''), $5, $6, $7, $8, $9)
ON CONFLICT ON CONSTRAINT organizations_contact_email_key DO NOTHING
RETURNING organization_id

-- name: update_organization
UPDATE organizations SET name = $2, contact_email = nullif($3, ''), billing_email = $4, currency_code = $5,
                         time_zone = $6, metadata = $7
WHERE organization_id = $1

-- name: lock_organization
-- Whoever changes what an organization is called and where it is reached.
SELECT true FROM organizations WHERE organization_id = $1 FOR NO KEY UPDATE

-- name: lock_ownership
-- Whoever makes another organization for a person.
SELECT pg_advisory_xact_lock(hashtextextended('auth.organizations_of ' || $1::uuid::text, 0))

-- name: count_owned
SELECT count(*) FROM memberships AS m JOIN organizations AS o ON o.organization_id = m.organization_id
WHERE m.person_id = $1 AND m.role = 'owner' AND o.state <> 'deleted'

-- name: lock_standing
-- Whoever changes an organization's state. The row would do, but the tenant role may not lock it.
SELECT pg_advisory_xact_lock(hashtextextended('auth.organization ' || $1::uuid::text, 0))

-- name: hold_standing
-- Whoever adds something to an organization, beside others who do.
SELECT pg_advisory_xact_lock_shared(hashtextextended('auth.organization ' || $1::uuid::text, 0))

-- name: select_standing
SELECT plan_id, restricted, suspended, state_version FROM organizations WHERE organization_id = $1

-- name: update_standing
UPDATE organizations SET plan_id = $2, restricted = $3, suspended = $4, state_version = $5 WHERE organization_id = $1

-- name: select_contact
-- An organization without a contact is reached through who has owned it longest.
SELECT coalesce(o.contact_email, (
    SELECT p.email FROM memberships AS m JOIN people AS p USING (person_id)
    WHERE m.organization_id = o.organization_id AND m.role = 'owner' AND p.erase_time IS NULL
    ORDER BY m.create_time, m.person_id
    LIMIT 1
)) FROM organizations AS o
WHERE o.organization_id = $1

-- name: insert_registered_organization
-- Nothing where the contact is another organization's.
INSERT INTO organizations (organization_id, name, contact_email, billing_email, currency_code, time_zone, create_time)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT ON CONSTRAINT organizations_contact_email_key DO NOTHING
RETURNING organization_id

-- name: select_operators_word
SELECT state, suspend_reason FROM organizations WHERE organization_id = $1

-- name: update_operators_word
UPDATE organizations SET state = $2, suspend_reason = $3 WHERE organization_id = $1

-- name: delete_organization
-- The row stays, because invoices and the audit log do. Its unique names are free for others again.
UPDATE organizations SET state = 'deleted', suspend_reason = '', contact_email = NULL, external_id = NULL,
                         delete_time = $2
WHERE organization_id = $1

-- name: revoke_keys
-- In id order, as whoever locks several does.
WITH ending AS (
    SELECT api_key_id FROM api_keys WHERE organization_id = $1 AND revoke_time IS NULL ORDER BY api_key_id FOR UPDATE
)
UPDATE api_keys AS k SET revoke_time = $2
FROM ending WHERE k.organization_id = $1 AND k.api_key_id = ending.api_key_id

-- name: revoke_service_accounts
WITH ending AS (
    SELECT service_account_id FROM service_accounts WHERE organization_id = $1 AND revoke_time IS NULL
    ORDER BY service_account_id FOR UPDATE
)
UPDATE service_accounts AS a SET revoke_time = $2
FROM ending WHERE a.organization_id = $1 AND a.service_account_id = ending.service_account_id
