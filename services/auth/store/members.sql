-- name: delete_members
-- In the order in which whoever locks several does.
WITH ending AS (
    SELECT person_id FROM memberships WHERE organization_id = $1 ORDER BY person_id FOR UPDATE
)
DELETE FROM memberships AS m USING ending
WHERE m.organization_id = $1 AND m.person_id = ending.person_id
RETURNING m.person_id

-- name: lock_members
-- Whoever changes a role or removes somebody holds all owners, the one concerned and who asks, in one order, so that of
-- several who would leave no owner the later ones see what the earlier ones did.
SELECT person_id, role FROM memberships
WHERE organization_id = $1 AND (role = 'owner' OR person_id = ANY($2::uuid[]))
ORDER BY person_id
FOR UPDATE

-- name: select_member
SELECT m.organization_id, m.person_id, m.role, m.create_time AS join_time, p.email, p.name
FROM memberships AS m JOIN people AS p ON p.person_id = m.person_id
WHERE m.organization_id = $1 AND m.person_id = $2

-- name: select_member_by_email
SELECT true FROM memberships AS m JOIN people AS p ON p.person_id = m.person_id
WHERE m.organization_id = $1 AND p.email = $2

-- name: select_members
SELECT m.organization_id, m.person_id, m.role, m.create_time AS join_time, p.email, p.name
FROM memberships AS m JOIN people AS p ON p.person_id = m.person_id
WHERE m.organization_id = $1 AND ($2::timestamptz IS NULL OR (m.create_time, m.person_id) > ($2, $3::uuid))
ORDER BY m.organization_id, m.create_time, m.person_id
LIMIT $4

-- name: hold_role
-- Whoever demotes or removes the member waits for what is being done with the role, and then sees it.
SELECT role FROM memberships WHERE organization_id = $1 AND person_id = $2 FOR SHARE

-- name: select_service_account_role
SELECT role FROM service_accounts
WHERE organization_id = $1 AND service_account_id = $2 AND revoke_time IS NULL AND expire_time > $3

-- name: update_role
UPDATE memberships SET role = $3 WHERE organization_id = $1 AND person_id = $2

-- name: delete_member
DELETE FROM memberships WHERE organization_id = $1 AND person_id = $2

-- name: select_actor_name
-- Who invites, in words: a person by name or address, a service account by name.
SELECT coalesce(nullif(name, ''), email) AS name FROM people WHERE person_id = $1
UNION ALL
SELECT name FROM service_accounts WHERE service_account_id = $1
LIMIT 1

-- name: select_second_factors
-- The tenant role has no business with second factors, so whom to ask about it has read before under row security.
SELECT person_id FROM second_factors WHERE person_id = ANY($1::uuid[]) AND confirm_time IS NOT NULL
