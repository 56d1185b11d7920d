-- name: insert_session
INSERT INTO sessions (session_id, person_id, organization_id, create_time, last_use_time, expire_time, end_time, address,
                      user_agent)
VALUES ($1, $2, $3, $4, $4, $5, $6, $7, $8)

-- name: insert_refresh_token
INSERT INTO refresh_tokens (digest, session_id, pepper_version, create_time) VALUES ($1, $2, $3, $4)

-- name: renew_session
-- A refresh, whole: the token is used, its session goes on and has another token, or nothing happens at all. Of several
-- that come at once the first locks the token's row; the others wait for it and find it used. A revocation that comes at
-- once has locked the session's row; the update below waits for it and finds the session ended.
WITH used AS (
    UPDATE refresh_tokens AS t SET use_time = $2
    FROM sessions AS s
    WHERE t.digest = ANY($1::bytea[]) AND t.use_time IS NULL AND s.session_id = t.session_id
      AND s.revoke_time IS NULL AND s.expire_time > $2
    RETURNING t.session_id
), renewed AS (
    UPDATE sessions AS s SET last_use_time = $2, expire_time = least($3, s.end_time)
    FROM used
    WHERE s.session_id = used.session_id AND s.revoke_time IS NULL AND s.expire_time > $2
    RETURNING s.*
), replaced AS (
    INSERT INTO refresh_tokens (digest, session_id, pepper_version, create_time)
    SELECT $4, session_id, $5, $2 FROM renewed
)
SELECT session_id, person_id, organization_id, create_time, last_use_time, expire_time, end_time, address, user_agent
FROM renewed

-- name: select_session_of_used_token
-- Whose token was shown a second time; nothing where its session has ended anyway.
SELECT s.session_id, s.person_id, s.organization_id, s.create_time, s.last_use_time, s.expire_time, s.end_time,
       s.address, s.user_agent
FROM refresh_tokens AS t
JOIN sessions AS s ON s.session_id = t.session_id
WHERE t.digest = ANY($1::bytea[]) AND t.use_time IS NOT NULL AND s.revoke_time IS NULL AND s.expire_time > $2

-- name: select_live_sessions
SELECT session_id, person_id, organization_id, create_time, last_use_time, expire_time, end_time, address, user_agent
FROM sessions
WHERE person_id = $1 AND revoke_time IS NULL AND expire_time > $2
ORDER BY session_id DESC
LIMIT $3

-- name: select_session_of_person
SELECT session_id, person_id, organization_id, create_time, last_use_time, expire_time, end_time, address, user_agent
FROM sessions
WHERE session_id = $1 AND person_id = $2

-- name: move_session
UPDATE sessions SET organization_id = $3
WHERE session_id = $1 AND person_id = $2 AND revoke_time IS NULL AND expire_time > $4
RETURNING session_id, person_id, organization_id, create_time, last_use_time, expire_time, end_time, address, user_agent

-- name: lock_person
-- Whoever signs in and whoever ends all of a person's sessions wait for each other, so that no session slips through.
SELECT FROM people WHERE person_id = $1 FOR NO KEY UPDATE

-- name: revoke_sessions
-- Rows are locked in id order, so that two who revoke at once do not wait for each other.
WITH ending AS (
    SELECT session_id FROM sessions WHERE session_id = ANY($1::uuid[]) AND revoke_time IS NULL
    ORDER BY session_id FOR UPDATE
)
UPDATE sessions AS s SET revoke_time = now(), revoke_reason = $2
FROM ending WHERE s.session_id = ending.session_id
RETURNING s.session_id

-- name: revoke_sessions_of_person
WITH ending AS (
    SELECT session_id FROM sessions
    WHERE person_id = $1 AND session_id IS DISTINCT FROM $2::uuid AND revoke_time IS NULL
    ORDER BY session_id FOR UPDATE
)
UPDATE sessions AS s SET revoke_time = now(), revoke_reason = $3
FROM ending WHERE s.session_id = ending.session_id
RETURNING s.session_id

-- name: revoke_sessions_of_membership
WITH ending AS (
    SELECT session_id FROM sessions
    WHERE organization_id = $1 AND person_id = $2 AND revoke_time IS NULL
    ORDER BY session_id FOR UPDATE
)
UPDATE sessions AS s SET revoke_time = now(), revoke_reason = $3
FROM ending WHERE s.session_id = ending.session_id
RETURNING s.session_id

-- name: revoke_sessions_of_organization
WITH ending AS (
    SELECT session_id FROM sessions WHERE organization_id = $1 AND revoke_time IS NULL
    ORDER BY session_id FOR UPDATE
)
UPDATE sessions AS s SET revoke_time = now(), revoke_reason = $2
FROM ending WHERE s.session_id = ending.session_id
RETURNING s.session_id

-- name: revoke_surplus_sessions
-- Beyond so many the ones that were renewed longest ago end. The person's row is locked.
WITH ending AS (
    SELECT session_id FROM (
        SELECT session_id FROM sessions
        WHERE person_id = $1 AND revoke_time IS NULL AND expire_time > $2
        ORDER BY last_use_time DESC, session_id DESC
        OFFSET $3
    ) AS surplus
    ORDER BY session_id
)
UPDATE sessions AS s SET revoke_time = now(), revoke_reason = $4
FROM ending WHERE s.session_id = ending.session_id AND s.revoke_time IS NULL
RETURNING s.session_id

-- name: remove_ended_sessions
-- Their tokens go with them.
DELETE FROM sessions WHERE session_id = ANY(ARRAY(
    SELECT session_id FROM sessions WHERE expire_time < $1 OR revoke_time < $1
    ORDER BY session_id LIMIT $2 FOR UPDATE SKIP LOCKED
))

-- name: remove_used_refresh_tokens
DELETE FROM refresh_tokens WHERE digest = ANY(ARRAY(
    SELECT digest FROM refresh_tokens WHERE use_time < $1 ORDER BY use_time LIMIT $2 FOR UPDATE SKIP LOCKED
))
