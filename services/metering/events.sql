-- name: create_staging
-- COPY is refused on tables with row security, so rows land in a table of the connection's own first. A temporary table
-- is written without WAL, is seen by nobody else, and exists already when the pool hands out the connection again.
CREATE TEMPORARY TABLE IF NOT EXISTS staged_usage_events (
    {{staging_definition}}
) ON COMMIT DELETE ROWS

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
    INSERT INTO usage_events ({{stored_columns}})
    SELECT {{stored_values}}
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
