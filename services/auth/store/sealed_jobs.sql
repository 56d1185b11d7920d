-- name: lock_older_jobs
-- A job that runs is left alone: it ends soon, or it is tried again and found another day.
SELECT job_id, payload FROM jobs
WHERE kind = $1 AND state IN ('queued', 'dead') AND (payload ->> 'data_key_version')::integer <> $2 AND ($3::uuid IS NULL OR job_id > $3)
ORDER BY job_id
LIMIT $4
FOR UPDATE

-- name: merge_payload
UPDATE jobs SET payload = payload || $2::text::jsonb WHERE job_id = $1
