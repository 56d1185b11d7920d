-- name: advance_arrival_week
-- Waits for every transaction that files under the old week (they hold the row FOR SHARE); matches no row otherwise.
UPDATE arrival_weeks
SET week = date_trunc('week', clock_timestamp() AT TIME ZONE 'UTC')::date
WHERE week < date_trunc('week', clock_timestamp() AT TIME ZONE 'UTC')::date

-- name: hold_arrival_week
-- The week may have ended on the clock between these two statements; what counts is what the row says.
SELECT week FROM arrival_weeks FOR SHARE

-- name: create_week_partition
SELECT create_week_partition($1, $2)

-- name: drop_event_id_weeks
SELECT drop_event_id_weeks($1)

-- name: insert_dead_letter
INSERT INTO dead_letters (
    payload_hash, reason, detail, source, source_partition, payload, create_time
)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (payload_hash, reason) DO NOTHING

-- name: put_offset
-- Never back: a consumer that lost its partition may still be finishing an old batch. The time is that of the last
-- advance, so that what is sent again long afterwards can be told from what is new.
INSERT INTO ingest_offsets AS o (source, source_partition, next_offset, update_time)
VALUES ($1, $2, $3, $4)
ON CONFLICT (source, source_partition) DO UPDATE
SET next_offset = excluded.next_offset, update_time = excluded.update_time
WHERE o.next_offset < excluded.next_offset

-- name: move_offset
-- Back too: for a source that lost what its position speaks of.
UPDATE ingest_offsets SET next_offset = $3, update_time = $4
WHERE source = $1 AND source_partition = $2

-- name: get_position
SELECT next_offset, update_time FROM ingest_offsets WHERE source = $1 AND source_partition = $2

-- name: query_usage
-- One statement for every combination of width and dimensions: $4 is null for one row over the range, $5 to $7 say
-- which dimensions count, $9 is null or the only keys that count. The range is a prefix of the primary key.
SELECT start_time, api_key_id, route_id, status_class,
    sum(request_count)::bigint AS request_count,
    sum(billable_count)::bigint AS billable_count,
    sum(billable_units) AS billable_units,
    sum(test_count)::bigint AS test_count
FROM (
    SELECT
        CASE
            WHEN $4::interval IS NULL THEN $2::timestamptz
            ELSE date_bin($4::interval, bucket_start, 'epoch'::timestamptz)
        END AS start_time,
        CASE WHEN $5::boolean THEN api_key_id END AS api_key_id,
        CASE WHEN $6::boolean THEN route_id END AS route_id,
        CASE WHEN $7::boolean THEN status_class END AS status_class,
        request_count, billable_count, billable_units, test_count
    FROM usage_rollups
    WHERE organization_id = $1 AND bucket_start >= $2 AND bucket_start < $3
    AND ($9::uuid[] IS NULL OR api_key_id = ANY ($9))
) AS buckets
GROUP BY start_time, api_key_id, route_id, status_class
ORDER BY start_time, api_key_id, route_id, status_class
LIMIT $8

-- name: count_waiting_letters
SELECT count(*) FROM (SELECT FROM dead_letters WHERE state = 'waiting' LIMIT $1) AS waiting

-- name: list_letters
-- Behind a place in the order of the index; $2 to $4 are null for the first page.
SELECT payload_hash, reason, detail, source, source_partition, payload, create_time, state, resolve_time, resolver
FROM dead_letters
WHERE state = $1 AND ($2::timestamptz IS NULL OR (create_time, payload_hash, reason) > ($2, $3::bytea, $4::text))
ORDER BY create_time, payload_hash, reason
LIMIT $5

-- name: find_letter
SELECT payload_hash, reason, detail, source, source_partition, payload, create_time, state, resolve_time, resolver
FROM dead_letters
WHERE payload_hash = $1 AND reason = $2

-- name: lock_letter
-- Two operators may decide at once: the second one waits and then finds what the first one decided.
SELECT payload_hash, reason, detail, source, source_partition, payload, create_time, state, resolve_time, resolver
FROM dead_letters
WHERE payload_hash = $1 AND reason = $2
FOR UPDATE

-- name: resolve_letter
UPDATE dead_letters SET state = $3, resolve_time = $4, resolver = $5
WHERE payload_hash = $1 AND reason = $2
RETURNING payload_hash, reason, detail, source, source_partition, payload, create_time, state, resolve_time, resolver
