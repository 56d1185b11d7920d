-- name: lock_owners
-- All owners of the organizations that a person owns, in the order in which whoever locks owners does. Owners who are
-- erased at the same time wait for each other here.
SELECT m.organization_id, m.person_id
FROM memberships AS m JOIN organizations AS o USING (organization_id)
WHERE m.role = 'owner' AND o.state <> 'deleted'
    AND m.organization_id IN (SELECT organization_id FROM memberships WHERE person_id = $1 AND role = 'owner')
ORDER BY m.organization_id, m.person_id
FOR UPDATE OF m

-- name: select_owners
-- Read again under the locks: an owner who was removed meanwhile is none.
SELECT m.organization_id, m.person_id
FROM memberships AS m JOIN organizations AS o USING (organization_id)
WHERE m.role = 'owner' AND o.state <> 'deleted'
    AND m.organization_id IN (SELECT organization_id FROM memberships WHERE person_id = $1 AND role = 'owner')

-- name: select_addresses
-- Of today, asked for, and of before as the audit log knows them; one that is somebody else's today is left to them.
SELECT DISTINCT lower(a.address) AS address
FROM (
    SELECT email AS address FROM people WHERE person_id = $1
    UNION ALL SELECT new_email FROM email_changes WHERE person_id = $1
    UNION ALL SELECT value FROM audit_personal_values WHERE person_id = $1 AND strpos(value, '@') > 0
) AS a
WHERE NOT EXISTS (SELECT FROM people AS p WHERE p.email = lower(a.address) AND p.person_id <> $1)
ORDER BY address

-- name: replace_contacts
-- The organization goes on: its owners are written to where there is no contact, and somebody has to get its invoices.
UPDATE organizations AS o
SET contact_email = CASE WHEN lower(o.contact_email) = ANY($2::text[]) THEN NULL ELSE o.contact_email END,
    billing_email = CASE
        WHEN lower(o.billing_email) = ANY($2::text[]) THEN coalesce((
            SELECT p.email FROM memberships AS m JOIN people AS p USING (person_id)
            WHERE m.organization_id = o.organization_id AND m.role = 'owner' AND m.person_id <> $1
            ORDER BY m.create_time, m.person_id LIMIT 1
        ), '')
        ELSE o.billing_email
    END
WHERE lower(o.contact_email) = ANY($2::text[]) OR lower(o.billing_email) = ANY($2::text[])

-- name: erase_person
UPDATE people
SET email = NULL, name = '', password_hash = NULL, credential_version = credential_version + 1, erase_time = $2
WHERE person_id = $1

-- name: remove_memberships
DELETE FROM memberships WHERE person_id = $1

-- name: remove_platform_roles
DELETE FROM platform_roles WHERE person_id = $1

-- name: remove_second_factor
DELETE FROM second_factors WHERE person_id = $1

-- name: remove_password_resets
DELETE FROM password_resets WHERE person_id = $1

-- name: remove_email_changes
DELETE FROM email_changes WHERE person_id = $1 OR lower(new_email) = ANY($2::text[])

-- name: remove_registrations
DELETE FROM registrations WHERE email = ANY($1::text[])

-- name: remove_invitations
DELETE FROM invitations WHERE email = ANY($1::text[])

-- name: cancel_invitations_sent
-- Nobody joins in the name of somebody who is gone.
UPDATE invitations SET state = 'cancelled', answer_time = $2 WHERE inviter_id = $1 AND state = 'pending'

-- name: blank_sessions
-- The rows are needed as long as their tokens could be valid.
UPDATE sessions SET address = '', user_agent = '' WHERE person_id = $1

-- name: remove_answers
-- First answers to the person's requests, which may show them.
DELETE FROM idempotency_keys WHERE principal = $1

-- name: remove_jobs
-- E-mails that wait for the person or tell of them, those that were sent and those that were given up.
DELETE FROM jobs
WHERE kind <> 'erase_address' AND jsonb_path_exists(
    payload, '$.** ? (@.type() == "string" && @ == $wanted[*])', jsonb_build_object('wanted', to_jsonb($1::text[]))
)

-- name: remove_personal_values
DELETE FROM audit_personal_values WHERE person_id = $1 OR lower(value) = ANY($2::text[])

-- name: remove_personal_values_by_address
DELETE FROM audit_personal_values WHERE lower(value) = ANY($1::text[])

-- name: forget_payload
UPDATE jobs SET payload = '{}' WHERE job_id = $1

-- name: export_person
SELECT to_jsonb(t)::text AS document FROM (
    SELECT person_id, email, name, create_time FROM people WHERE person_id = $1 AND erase_time IS NULL
) AS t

-- name: export_second_factor
SELECT to_jsonb(t)::text AS document FROM (
    SELECT f.create_time, f.confirm_time,
           (SELECT count(*) FROM recovery_codes AS c WHERE c.person_id = f.person_id AND c.use_time IS NULL)
               AS recovery_codes_left
    FROM second_factors AS f WHERE f.person_id = $1 LIMIT $2
) AS t

-- name: export_platform_roles
SELECT to_jsonb(t)::text AS document FROM (SELECT role, create_time FROM platform_roles WHERE person_id = $1 LIMIT $2) AS t

-- name: export_memberships
SELECT to_jsonb(t)::text AS document FROM (
    SELECT m.organization_id, o.name AS organization_name, m.role, m.create_time AS join_time
    FROM memberships AS m JOIN organizations AS o USING (organization_id)
    WHERE m.person_id = $1 ORDER BY m.create_time DESC LIMIT $2
) AS t

-- name: export_sessions
SELECT to_jsonb(t)::text AS document FROM (
    SELECT session_id, organization_id, create_time, last_use_time, expire_time, revoke_time, revoke_reason, address,
           user_agent
    FROM sessions WHERE person_id = $1 ORDER BY create_time DESC LIMIT $2
) AS t

-- name: export_registrations
SELECT to_jsonb(t)::text AS document FROM (
    SELECT r.registration_id, r.email, r.name, r.organization_name, r.create_time
    FROM registrations AS r JOIN people AS p ON p.email = r.email
    WHERE p.person_id = $1 ORDER BY r.create_time DESC LIMIT $2
) AS t

-- name: export_email_changes
SELECT to_jsonb(t)::text AS document FROM (
    SELECT new_email, create_time, expire_time FROM email_changes
    WHERE person_id = $1 ORDER BY create_time DESC LIMIT $2
) AS t

-- name: export_password_resets
SELECT to_jsonb(t)::text AS document FROM (
    SELECT create_time, expire_time FROM password_resets WHERE person_id = $1 ORDER BY create_time DESC LIMIT $2
) AS t

-- name: export_invitations
SELECT to_jsonb(t)::text AS document FROM (
    SELECT i.organization_id, i.invitation_id, i.email, i.role, i.state, i.create_time, i.expire_time, i.answer_time
    FROM invitations AS i JOIN people AS p ON p.email = i.email
    WHERE p.person_id = $1 ORDER BY i.invitation_id DESC LIMIT $2
) AS t

-- name: export_invitations_sent
-- Ids alone: who was invited is somebody else.
SELECT to_jsonb(t)::text AS document FROM (
    SELECT organization_id, invitation_id, role, state, create_time
    FROM invitations WHERE inviter_id = $1 ORDER BY invitation_id DESC LIMIT $2
) AS t

-- name: export_api_keys
SELECT to_jsonb(t)::text AS document FROM (
    SELECT organization_id, api_key_id, name, hint, mode, create_time, expire_time, revoke_time
    FROM api_keys WHERE creator_id = $1 ORDER BY api_key_id DESC LIMIT $2
) AS t
