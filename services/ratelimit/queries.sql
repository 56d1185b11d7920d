-- name: put_policy
-- Returns a row only where the version is newer; the notification goes out with the commit, or not at all.
WITH put AS (
    INSERT INTO policies (organization_id, version, windows, update_time)
    VALUES ($1, $2, $3::jsonb, $4)
    ON CONFLICT (organization_id) DO UPDATE
    SET version = excluded.version, windows = excluded.windows, update_time = excluded.update_time
    WHERE policies.version < excluded.version
    RETURNING organization_id
)
SELECT pg_notify('ratelimit_policies', organization_id::text) FROM put

-- name: get_policy
SELECT organization_id, version, windows FROM policies WHERE organization_id = $1

-- name: lock_policy
-- What the audit log calls the policy before is the one that was replaced.
SELECT organization_id, version, windows FROM policies WHERE organization_id = $1 FOR UPDATE

-- name: list_policies
SELECT organization_id, version, windows FROM policies
