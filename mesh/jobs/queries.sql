-- name: enqueue
-- Without a conflict target, because naming one would need SELECT on the table, which the tenant role must not have.
INSERT INTO jobs (job_id, kind, organization_id, payload, dedupe_key, run_time, trace_context)
VALUES ($1, $2, $3, $4::text::jsonb, $5, coalesce($6::timestamptz, now()), $7)
ON CONFLICT DO NOTHING

-- name: claim
-- The oldest due jobs that nobody else is claiming. Counting the attempt at the start makes a job that kills its worker
-- end as a dead letter as well.
UPDATE jobs SET state = 'running', attempt_count = jobs.attempt_count + 1, lease_id = $3,
                lease_expire_time = now() + make_interval(secs => $4)
FROM (
    SELECT job_id FROM jobs
    WHERE state = 'queued' AND run_time <= now() AND kind = ANY($1::text[])
    ORDER BY run_time, job_id
    LIMIT $2
    FOR UPDATE SKIP LOCKED
) AS due
WHERE jobs.job_id = due.job_id
RETURNING jobs.job_id, jobs.kind, jobs.organization_id, jobs.payload, jobs.attempt_count, jobs.trace_context

-- name: extend
-- The heartbeat. A lease that was lost stays lost.
UPDATE jobs SET lease_expire_time = now() + make_interval(secs => $3)
WHERE job_id = ANY($1::uuid[]) AND lease_id = ANY($2::uuid[]) AND state = 'running'

-- name: finish
UPDATE jobs SET state = 'done', finish_time = now(), last_error = NULL, lease_id = NULL, lease_expire_time = NULL
WHERE job_id = $1 AND lease_id = $2 AND state = 'running'

-- name: retry
UPDATE jobs SET state = 'queued', run_time = now() + make_interval(secs => $3), last_error = $4, lease_id = NULL,
                lease_expire_time = NULL
WHERE job_id = $1 AND lease_id = $2 AND state = 'running'

-- name: bury
UPDATE jobs SET state = 'dead', finish_time = now(), last_error = $3, lease_id = NULL, lease_expire_time = NULL
WHERE job_id = $1 AND lease_id = $2 AND state = 'running'

-- name: release
-- The worker stops before the job has ended: somebody else takes it, and this attempt does not count.
UPDATE jobs SET state = 'queued', run_time = now(), attempt_count = attempt_count - 1, lease_id = NULL,
                lease_expire_time = NULL
WHERE job_id = $1 AND lease_id = $2 AND state = 'running'

-- name: reclaim
-- Jobs of workers that died. One that has no attempt left is buried by whoever claims it next.
UPDATE jobs SET state = 'queued', last_error = 'the worker died', lease_id = NULL, lease_expire_time = NULL
WHERE job_id = ANY(ARRAY(
    SELECT job_id FROM jobs WHERE state = 'running' AND lease_expire_time < now()
    ORDER BY job_id FOR UPDATE SKIP LOCKED
))

-- name: count
SELECT state, count(*) AS jobs FROM jobs WHERE state <> 'done' GROUP BY state

-- name: dead_letters
SELECT job_id, kind, organization_id, payload, attempt_count, trace_context, last_error
FROM jobs WHERE state = 'dead' ORDER BY finish_time DESC LIMIT $1

-- name: retry_dead_letter
UPDATE jobs SET state = 'queued', run_time = now(), attempt_count = 0, finish_time = NULL
WHERE job_id = $1 AND state = 'dead'

-- name: remove_finished
-- In parts, so that a long backlog does not become one long transaction.
DELETE FROM jobs WHERE job_id = ANY(ARRAY(
    SELECT job_id FROM jobs WHERE state = 'done' AND finish_time < $1 LIMIT $2 FOR UPDATE SKIP LOCKED
))
