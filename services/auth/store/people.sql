-- name: select_person_by_email
SELECT person_id, email, password_hash FROM people WHERE email = $1

-- name: select_contact
SELECT email, name FROM people WHERE person_id = $1

-- name: update_password_hash
-- Only where nobody set another password meanwhile.
UPDATE people SET password_hash = $3 WHERE person_id = $1 AND password_hash = $2

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

-- name: select_platform_roles
SELECT role FROM platform_roles WHERE person_id = $1 ORDER BY role
