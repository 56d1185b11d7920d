-- name: create_staging
-- COPY is refused on tables with row security, so rows land in a table of the connection's own first. A temporary table
-- is written without WAL, is seen by nobody else, and exists already when the pool hands out the connection again.
CREATE TEMPORARY TABLE IF NOT EXISTS staged_usage_events (
    organization_id uuid NOT NULL,
    event_id uuid NOT NULL,
    start_time_us bigint NOT NULL,
    api_key_id uuid NOT NULL,
    route_id text NOT NULL,
    method text NOT NULL,
    path_template text NOT NULL,
    status smallint NOT NULL,
    outcome smallint NOT NULL,
    duration_us bigint NOT NULL,
    upstream_latency_us bigint NOT NULL,
    request_bytes bigint NOT NULL,
    response_bytes bigint NOT NULL,
    cost_units bigint NOT NULL,
    test_mode boolean NOT NULL,
    billable boolean NOT NULL,
    external_subject text NOT NULL,
    quantities text,
    properties text,
    payload_hash bytea NOT NULL,
    id_time_us bigint,
    ordinal integer NOT NULL
) ON COMMIT DELETE ROWS

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

-- name: store_staged_events
-- The heart of metering: what is new is stored and counted, in one statement. $1 is the week that ids are filed under,
-- $2 the oldest week that a repetition can have arrived in. Ids made after $3 cannot have arrived before this
-- week and are not looked up there; the others are, and those that do not tell (null). Ids are inserted in id order and rollups in key order, ids all before the first
-- rollup (grouping waits for them), so concurrent batches cannot deadlock. Returns the events that were there already.
WITH fresh AS (
    INSERT INTO usage_event_ids (organization_id, event_id, arrival_week, payload_hash)
    SELECT s.organization_id, s.event_id, $1, s.payload_hash
    FROM staged_usage_events s
    WHERE s.id_time_us >= $3 OR NOT EXISTS (
        SELECT FROM usage_event_ids k
        WHERE k.organization_id = s.organization_id AND k.event_id = s.event_id
        AND k.arrival_week >= $2 AND k.arrival_week < $1
    )
    ORDER BY s.organization_id, s.event_id
    ON CONFLICT (organization_id, event_id, arrival_week) DO NOTHING
    RETURNING organization_id, event_id
),
stored AS (
    INSERT INTO usage_events (
        organization_id, event_id, start_time, api_key_id, route_id, method, path_template, status, outcome,
        duration_us, upstream_latency_us, request_bytes, response_bytes, cost_units, test_mode, billable,
        external_subject, quantities, properties
    )
    SELECT
        s.organization_id, s.event_id, 'epoch'::timestamptz + s.start_time_us * interval '1 microsecond',
        s.api_key_id, s.route_id, s.method, s.path_template, s.status, s.outcome,
        s.duration_us, s.upstream_latency_us, s.request_bytes, s.response_bytes, s.cost_units, s.test_mode, s.billable,
        s.external_subject, s.quantities::jsonb, s.properties::jsonb
    FROM staged_usage_events s
    JOIN fresh f USING (organization_id, event_id)
),
rolled AS (
    INSERT INTO usage_rollups AS r (
        organization_id, bucket_start, api_key_id, route_id, status_class, request_count, billable_count,
        billable_units, test_count, request_bytes, response_bytes
    )
    SELECT
        s.organization_id,
        'epoch'::timestamptz + (s.start_time_us / 900000000) * interval '15 minutes',
        s.api_key_id,
        s.route_id,
        (s.status / 100)::smallint,
        count(*) FILTER (WHERE NOT s.test_mode),
        count(*) FILTER (WHERE s.billable),
        coalesce(sum(s.cost_units) FILTER (WHERE s.billable), 0),
        count(*) FILTER (WHERE s.test_mode),
        coalesce(sum(s.request_bytes) FILTER (WHERE NOT s.test_mode), 0),
        coalesce(sum(s.response_bytes) FILTER (WHERE NOT s.test_mode), 0)
    FROM staged_usage_events s
    JOIN fresh f USING (organization_id, event_id)
    GROUP BY s.organization_id, s.start_time_us / 900000000, s.api_key_id, s.route_id, s.status / 100
    ORDER BY s.organization_id, s.start_time_us / 900000000, s.api_key_id, s.route_id, s.status / 100
    ON CONFLICT (organization_id, bucket_start, api_key_id, route_id, status_class) DO UPDATE SET
        request_count = r.request_count + excluded.request_count,
        billable_count = r.billable_count + excluded.billable_count,
        billable_units = r.billable_units + excluded.billable_units,
        test_count = r.test_count + excluded.test_count,
        request_bytes = r.request_bytes + excluded.request_bytes,
        response_bytes = r.response_bytes + excluded.response_bytes
)
SELECT s.ordinal
FROM staged_usage_events s
WHERE NOT EXISTS (SELECT FROM fresh f WHERE f.organization_id = s.organization_id AND f.event_id = s.event_id)

-- name: find_conflicts
-- Of the staged events that were there already: those that were something else. $1 is the oldest week that counts.
SELECT s.ordinal
FROM staged_usage_events s
JOIN usage_event_ids k USING (organization_id, event_id)
WHERE s.ordinal = ANY ($2::integer[]) AND k.arrival_week >= $1 AND k.payload_hash <> s.payload_hash

-- name: insert_dead_letter
INSERT INTO dead_letters (
    payload_hash, reason, detail, source, source_partition, payload, create_time
)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (payload_hash, reason) DO NOTHING

-- name: put_offset
-- Never back: a consumer that lost its partition may still be finishing an old batch.
INSERT INTO ingest_offsets AS o (source, source_partition, next_offset, update_time)
VALUES ($1, $2, $3, $4)
ON CONFLICT (source, source_partition) DO UPDATE
SET next_offset = greatest(o.next_offset, excluded.next_offset), update_time = excluded.update_time

-- name: get_offset
SELECT next_offset FROM ingest_offsets WHERE source = $1 AND source_partition = $2

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
