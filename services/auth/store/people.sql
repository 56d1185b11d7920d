-- name: select_person_by_email
SELECT person_id, email, password_hash FROM people WHERE email = $1

-- name: update_password_hash
-- Only where nobody set another password meanwhile.
UPDATE people SET password_hash = $3 WHERE person_id = $1 AND password_hash = $2

-- name: select_memberships
-- The first organization that somebody joined is theirs where they name none.
SELECT organization_id, role FROM memberships WHERE person_id = $1 ORDER BY create_time, organization_id

-- name: select_platform_roles
SELECT role FROM platform_roles WHERE person_id = $1 ORDER BY role
