-- name: insert_audit_entry
-- An entry that is there already stays as it is: whoever sends it again has lost the answer, not the fact.
INSERT INTO audit_entries (organization_id, audit_entry_id, actor, actor_kind, action, resource, details, create_time,
                           address, request_id, before, after, personal_count)
VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb, $8, $9, $10, $11::text::jsonb, $12::text::jsonb, $13)
ON CONFLICT DO NOTHING

-- name: insert_personal_value
INSERT INTO audit_personal_values (organization_id, audit_entry_id, position, value, person_id)
VALUES ($1, $2, $3, $4, $5)

-- name: select_personal_values
-- Of many entries at once, which an export of a person takes from several organizations.
SELECT p.organization_id, p.audit_entry_id, p.position, p.value
FROM unnest($1::uuid[], $2::uuid[]) AS wanted (organization_id, audit_entry_id)
JOIN audit_personal_values AS p USING (organization_id, audit_entry_id)

-- name: plan_for_these_values
-- A plan for any values takes every organization for a small one, and then each index for as good as the other.
SET LOCAL plan_cache_mode = force_custom_plan

-- name: select_newest
-- Keyset pages. A statement for each filter that may lead, as a plain comparison, so that it has its index.
SELECT audit_entry_id, organization_id, actor, actor_kind, action, resource, details, create_time, address, request_id,
       before, after, personal_count
FROM audit_entries
WHERE organization_id = $1 AND create_time >= $2 AND create_time < $3
    AND (create_time, audit_entry_id) < ($4, $5)
ORDER BY create_time DESC, audit_entry_id DESC
LIMIT $6

-- name: select_newest_by_resource
SELECT audit_entry_id, organization_id, actor, actor_kind, action, resource, details, create_time, address, request_id,
       before, after, personal_count
FROM audit_entries
WHERE organization_id = $1 AND create_time >= $2 AND create_time < $3
    AND (create_time, audit_entry_id) < ($4, $5) AND resource = $6
    AND ($7::text IS NULL OR actor = $7) AND ($8::text IS NULL OR action = $8) AND ($9::text IS NULL OR action_kind = $9)
ORDER BY create_time DESC, audit_entry_id DESC
LIMIT $10

-- name: select_newest_by_actor
SELECT audit_entry_id, organization_id, actor, actor_kind, action, resource, details, create_time, address, request_id,
       before, after, personal_count
FROM audit_entries
WHERE organization_id = $1 AND create_time >= $2 AND create_time < $3
    AND (create_time, audit_entry_id) < ($4, $5) AND actor = $6
    AND ($7::text IS NULL OR action = $7) AND ($8::text IS NULL OR action_kind = $8)
ORDER BY create_time DESC, audit_entry_id DESC
LIMIT $9

-- name: select_newest_by_action
SELECT audit_entry_id, organization_id, actor, actor_kind, action, resource, details, create_time, address, request_id,
       before, after, personal_count
FROM audit_entries
WHERE organization_id = $1 AND create_time >= $2 AND create_time < $3
    AND (create_time, audit_entry_id) < ($4, $5) AND action = $6
ORDER BY create_time DESC, audit_entry_id DESC
LIMIT $7

-- name: select_newest_by_kind
SELECT audit_entry_id, organization_id, actor, actor_kind, action, resource, details, create_time, address, request_id,
       before, after, personal_count
FROM audit_entries
WHERE organization_id = $1 AND create_time >= $2 AND create_time < $3
    AND (create_time, audit_entry_id) < ($4, $5) AND action_kind = $6
ORDER BY create_time DESC, audit_entry_id DESC
LIMIT $7

-- name: select_oldest
-- As above, in the order in which it happened.
SELECT audit_entry_id, organization_id, actor, actor_kind, action, resource, details, create_time, address, request_id,
       before, after, personal_count
FROM audit_entries
WHERE organization_id = $1 AND create_time >= $2 AND create_time < $3
    AND (create_time, audit_entry_id) > ($4, $5)
ORDER BY create_time ASC, audit_entry_id ASC
LIMIT $6

-- name: select_oldest_by_resource
SELECT audit_entry_id, organization_id, actor, actor_kind, action, resource, details, create_time, address, request_id,
       before, after, personal_count
FROM audit_entries
WHERE organization_id = $1 AND create_time >= $2 AND create_time < $3
    AND (create_time, audit_entry_id) > ($4, $5) AND resource = $6
    AND ($7::text IS NULL OR actor = $7) AND ($8::text IS NULL OR action = $8) AND ($9::text IS NULL OR action_kind = $9)
ORDER BY create_time ASC, audit_entry_id ASC
LIMIT $10

-- name: select_oldest_by_actor
SELECT audit_entry_id, organization_id, actor, actor_kind, action, resource, details, create_time, address, request_id,
       before, after, personal_count
FROM audit_entries
WHERE organization_id = $1 AND create_time >= $2 AND create_time < $3
    AND (create_time, audit_entry_id) > ($4, $5) AND actor = $6
    AND ($7::text IS NULL OR action = $7) AND ($8::text IS NULL OR action_kind = $8)
ORDER BY create_time ASC, audit_entry_id ASC
LIMIT $9

-- name: select_oldest_by_action
SELECT audit_entry_id, organization_id, actor, actor_kind, action, resource, details, create_time, address, request_id,
       before, after, personal_count
FROM audit_entries
WHERE organization_id = $1 AND create_time >= $2 AND create_time < $3
    AND (create_time, audit_entry_id) > ($4, $5) AND action = $6
ORDER BY create_time ASC, audit_entry_id ASC
LIMIT $7

-- name: select_oldest_by_kind
SELECT audit_entry_id, organization_id, actor, actor_kind, action, resource, details, create_time, address, request_id,
       before, after, personal_count
FROM audit_entries
WHERE organization_id = $1 AND create_time >= $2 AND create_time < $3
    AND (create_time, audit_entry_id) > ($4, $5) AND action_kind = $6
ORDER BY create_time ASC, audit_entry_id ASC
LIMIT $7

-- name: select_of_person
-- What they did and what was done to them, in all organizations.
SELECT audit_entry_id, organization_id, actor, actor_kind, action, resource, details, create_time, address, request_id,
       before, after, personal_count
FROM (
    (SELECT * FROM audit_entries WHERE actor = $1 ORDER BY create_time DESC, audit_entry_id DESC LIMIT $3)
    UNION
    (SELECT * FROM audit_entries WHERE resource = $2 ORDER BY create_time DESC, audit_entry_id DESC LIMIT $3)
) AS found
ORDER BY create_time DESC, audit_entry_id DESC
LIMIT $3

-- name: select_personal_values_of
-- Of many entries at once, as far as they are one person's.
SELECT p.organization_id, p.audit_entry_id, p.position, p.value
FROM unnest($1::uuid[], $2::uuid[]) AS wanted (organization_id, audit_entry_id)
JOIN audit_personal_values AS p USING (organization_id, audit_entry_id)
WHERE p.person_id = $3
