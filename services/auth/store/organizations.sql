-- name: select_organization
SELECT organization_id, name, effective_state AS state, external_id, coalesce(contact_email, '') AS contact_email,
       billing_email, currency_code, time_zone, metadata, create_time, plan_id, restricted, suspended, suspend_reason, delete_time
FROM organizations
WHERE organization_id = $1

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
