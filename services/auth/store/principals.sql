-- name: select_changes_of_transactions
-- What notices named. An organization is read as it is now: notices may come late or be made up.
SELECT c.kind, c.subject_id, c.organization_id, c.change_time, coalesce(o.version, c.version) AS version,
       o.effective_state AS state
FROM principal_changes AS c
LEFT JOIN organizations AS o ON c.kind = 'organization' AND o.organization_id = c.subject_id
WHERE c.transaction_id = ANY($1::bigint[])
ORDER BY c.change_id

-- name: select_recent_changes
-- What tokens from before may not know, the latest first. Service accounts are asked for anew after a snapshot anyway.
SELECT kind, subject_id, organization_id, change_time, version, NULL AS state
FROM principal_changes
WHERE change_time > $1 AND kind IN ('session', 'membership')
ORDER BY change_time DESC
LIMIT $2

-- name: select_organizations_that_matter
-- A deleted one matters while tokens of it can be valid.
SELECT 'organization' AS kind, organization_id AS subject_id, organization_id, NULL::timestamptz AS change_time,
       version, effective_state AS state
FROM organizations
WHERE effective_state = 'suspended'
   OR organization_id IN (SELECT subject_id FROM principal_changes WHERE kind = 'organization' AND change_time > $1)

-- name: delete_old_changes
DELETE FROM principal_changes
WHERE change_id IN (
    SELECT change_id FROM principal_changes WHERE change_time <= $1 ORDER BY change_id LIMIT $2
)
