-- name: insert_audit_entry
-- An entry that is there already stays as it is: whoever sends it again has lost the answer, not the fact.
INSERT INTO audit_entries (organization_id, audit_entry_id, actor, actor_kind, action, resource, details, create_time,
                           address, request_id, before, after)
VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb, $8, $9, $10, $11::text::jsonb, $12::text::jsonb)
ON CONFLICT DO NOTHING

-- name: select_audit_entries
SELECT audit_entry_id, organization_id, actor, actor_kind, action, resource, details, create_time, address, request_id,
       before, after
FROM audit_entries
WHERE organization_id = $1 AND ($2::uuid IS NULL OR audit_entry_id < $2)
ORDER BY organization_id DESC, audit_entry_id DESC
LIMIT $3
