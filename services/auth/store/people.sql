-- name: select_person_by_email
SELECT person_id, email, password_hash, credential_version, name FROM people WHERE email = $1 AND erase_time IS NULL

-- name: select_person
SELECT person_id, email, password_hash, credential_version, name FROM people WHERE person_id = $1 AND erase_time IS NULL

-- name: lock_person
-- Whoever changes an account waits here for whoever changes it already.
SELECT person_id, email, password_hash, credential_version, name FROM people
WHERE person_id = $1 AND erase_time IS NULL
FOR UPDATE

-- name: hold_credentials
-- Whoever signs in has verified a password some time ago; it must still be the password when the session is stored.
-- Whoever changes it waits for that transaction, and ends the session.
SELECT true FROM people
WHERE person_id = $1 AND credential_version = $2 AND erase_time IS NULL
FOR SHARE

-- name: select_profile
SELECT p.person_id, p.email, p.name, p.create_time,
       EXISTS (SELECT FROM second_factors AS f
               WHERE f.person_id = p.person_id AND f.confirm_time IS NOT NULL) AS second_factor
FROM people AS p
WHERE p.person_id = $1 AND p.erase_time IS NULL

-- name: insert_person
-- Nothing where the address is somebody else's.
INSERT INTO people (person_id, email, name, password_hash, create_time)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT ON CONSTRAINT people_email_key DO NOTHING
RETURNING person_id

-- name: select_contact
SELECT email, name FROM people WHERE person_id = $1

-- name: update_password_hash
-- Only where nobody set another password meanwhile.
UPDATE people SET password_hash = $3 WHERE person_id = $1 AND password_hash = $2

-- name: set_password
-- Another password voids what was asked for or proved under the old one; a new hash of the same does not.
UPDATE people SET password_hash = $2, credential_version = credential_version + 1 WHERE person_id = $1

-- name: set_email
UPDATE people SET email = $2, credential_version = credential_version + 1 WHERE person_id = $1

-- name: void_proofs
UPDATE people SET credential_version = credential_version + 1 WHERE person_id = $1

-- name: update_name
UPDATE people SET name = $2 WHERE person_id = $1 AND erase_time IS NULL

-- name: insert_membership
INSERT INTO memberships (organization_id, person_id, role, create_time) VALUES ($1, $2, $3, $4)

-- name: select_memberships
-- The first organization that somebody joined is theirs where they name none.
SELECT m.organization_id, m.role, m.version
FROM memberships AS m
JOIN organizations AS o ON o.organization_id = m.organization_id
WHERE m.person_id = $1 AND o.state <> 'deleted'
ORDER BY m.create_time, m.organization_id

-- name: select_membership
SELECT m.organization_id, m.role, m.version
FROM memberships AS m
JOIN organizations AS o ON o.organization_id = m.organization_id
WHERE m.organization_id = $1 AND m.person_id = $2 AND o.state <> 'deleted'

-- name: lock_membership
-- Whoever removes the member waits, and then ends the session that is being opened here.
SELECT m.organization_id, m.role, m.version
FROM memberships AS m
JOIN organizations AS o ON o.organization_id = m.organization_id
WHERE m.organization_id = $1 AND m.person_id = $2 AND o.state <> 'deleted'
FOR SHARE OF m

-- name: select_named_memberships
SELECT m.organization_id, o.name AS organization_name, m.role, o.effective_state AS organization_state,
       m.create_time AS join_time
FROM memberships AS m JOIN organizations AS o USING (organization_id)
WHERE m.person_id = $1 AND o.state <> 'deleted'
ORDER BY m.create_time, m.organization_id

-- name: select_platform_roles
SELECT role FROM platform_roles WHERE person_id = $1 ORDER BY role
