-- name: lock_invitations
-- Whoever invites counts first, and two who count at once would both find room.
SELECT pg_advisory_xact_lock(hashtextextended('auth.invitations ' || $1::uuid::text, 0))

-- name: insert_invitation
INSERT INTO invitations (organization_id, invitation_id, email, role, inviter_id, digest, send_time, create_time,
                         expire_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8)

-- name: close_expired
-- Nobody answered in time; the address can be invited again.
UPDATE invitations SET state = 'expired', answer_time = expire_time
WHERE organization_id = $1 AND email = $2 AND state = 'pending' AND expire_time <= $3

-- name: select_pending_of_address
SELECT true FROM invitations WHERE organization_id = $1 AND email = $2 AND state = 'pending'

-- name: count_pending
SELECT count(*) FROM invitations WHERE organization_id = $1 AND state = 'pending' AND expire_time > $2

-- name: select_sends
-- How often an address was written to since an instant, and when first. An invitation that was sent again counts as often
-- as it was sent, from its first time on.
SELECT coalesce(sum(send_count), 0)::bigint AS count, min(create_time) AS first_time
FROM invitations
WHERE organization_id = $1 AND email = $2 AND send_time > $3

-- name: select_invitation
SELECT i.organization_id, i.invitation_id, i.email, i.role, i.state, i.inviter_id, i.create_time, i.expire_time,
       o.name AS organization_name
FROM invitations AS i JOIN organizations AS o ON o.organization_id = i.organization_id
WHERE i.organization_id = $1 AND i.invitation_id = $2

-- name: lock_invitation
-- Of several who answer, send again or take back, one does.
SELECT true FROM invitations WHERE organization_id = $1 AND invitation_id = $2 FOR NO KEY UPDATE

-- name: select_invitation_by_token
SELECT i.organization_id, i.invitation_id, i.email, i.role, i.state, i.inviter_id, i.create_time, i.expire_time,
       o.name AS organization_name
FROM invitations AS i JOIN organizations AS o ON o.organization_id = i.organization_id
WHERE i.digest = ANY($1::bytea[])

-- name: select_invitation_of_address
-- Whoever has the address may answer without the token; what waits for others they are not told of.
SELECT i.organization_id, i.invitation_id, i.email, i.role, i.state, i.inviter_id, i.create_time, i.expire_time,
       o.name AS organization_name
FROM invitations AS i JOIN organizations AS o ON o.organization_id = i.organization_id
WHERE i.email = $1 AND i.invitation_id = $2

-- name: select_invitations_of_address
SELECT i.organization_id, i.invitation_id, i.email, i.role, i.state, i.inviter_id, i.create_time, i.expire_time,
       o.name AS organization_name
FROM invitations AS i JOIN organizations AS o ON o.organization_id = i.organization_id
WHERE i.email = $1 AND i.state = 'pending' AND i.expire_time > $2
ORDER BY i.invitation_id DESC
LIMIT $3

-- name: select_invitations
-- Ids are UUIDv7, so their order is the order of creation and one column carries the page.
SELECT i.organization_id, i.invitation_id, i.email, i.role, i.state, i.inviter_id, i.create_time, i.expire_time,
       o.name AS organization_name
FROM invitations AS i JOIN organizations AS o ON o.organization_id = i.organization_id
WHERE i.organization_id = $1 AND ($2::uuid IS NULL OR i.invitation_id < $2)
  AND CASE WHEN i.state = 'pending' AND i.expire_time <= $4 THEN 'expired' ELSE i.state END = $3
ORDER BY i.organization_id DESC, i.invitation_id DESC
LIMIT $5

-- name: select_last_send
SELECT send_count, send_time FROM invitations WHERE organization_id = $1 AND invitation_id = $2

-- name: note_send
-- The token of the e-mail before is worth nothing from now on.
UPDATE invitations SET digest = $3, send_count = send_count + 1, send_time = $4, expire_time = $5
WHERE organization_id = $1 AND invitation_id = $2

-- name: answer_invitation
UPDATE invitations SET state = $3, answer_time = $4 WHERE organization_id = $1 AND invitation_id = $2

-- name: cancel_all
WITH ending AS (
    SELECT invitation_id FROM invitations WHERE organization_id = $1 AND state = 'pending'
    ORDER BY invitation_id FOR UPDATE
)
UPDATE invitations AS i SET state = 'cancelled', answer_time = $2
FROM ending WHERE i.organization_id = $1 AND i.invitation_id = ending.invitation_id

-- name: cancel_of_inviter
-- An invitation ends with the right to have made it.
WITH ending AS (
    SELECT invitation_id FROM invitations
    WHERE organization_id = $1 AND inviter_id = $2 AND role = ANY($3::text[]) AND state = 'pending'
    ORDER BY invitation_id FOR UPDATE
)
UPDATE invitations AS i SET state = 'cancelled', answer_time = $4
FROM ending WHERE i.organization_id = $1 AND i.invitation_id = ending.invitation_id
RETURNING i.invitation_id

-- name: remove_ended
DELETE FROM invitations WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM invitations WHERE expire_time < $1 ORDER BY expire_time LIMIT $2 FOR UPDATE SKIP LOCKED
))
