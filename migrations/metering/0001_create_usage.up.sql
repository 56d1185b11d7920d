-- Usage events, what has been seen of them, and their sums.
--
-- Both event tables are partitioned by week and their partitions carry no grants: a grant on a partition would go
-- around the parent's row security. A partition has row security too, without any policy, so it is closed by itself.

-- What has been stored, so that nothing is stored twice. `arrival_week` is in the key only because a unique constraint
-- on a partitioned table must contain the partition column; which week a transaction writes to is settled by
-- `arrival_weeks`, so that one id cannot slip into two weeks.
CREATE TABLE usage_event_ids (
    organization_id uuid NOT NULL,
    event_id uuid NOT NULL,
    arrival_week date NOT NULL,
    payload_hash bytea NOT NULL,
    CONSTRAINT usage_event_ids_pkey PRIMARY KEY (organization_id, event_id, arrival_week)
) PARTITION BY RANGE (arrival_week);

CREATE TABLE usage_events (
    organization_id uuid NOT NULL,
    event_id uuid NOT NULL,
    start_time timestamptz NOT NULL,
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
    quantities jsonb,
    properties jsonb,
    CONSTRAINT usage_events_pkey PRIMARY KEY (organization_id, start_time, event_id)
) PARTITION BY RANGE (start_time);

-- Sums per 15 minutes UTC. `request_count`, `billable_*` and the bytes are of live keys only; requests with test keys
-- are in `test_count` and nowhere else.
CREATE TABLE usage_rollups (
    organization_id uuid NOT NULL,
    bucket_start timestamptz NOT NULL,
    api_key_id uuid NOT NULL,
    route_id text NOT NULL,
    status_class smallint NOT NULL,
    request_count bigint NOT NULL,
    billable_count bigint NOT NULL,
    billable_units numeric NOT NULL,
    test_count bigint NOT NULL,
    request_bytes numeric NOT NULL,
    response_bytes numeric NOT NULL,
    CONSTRAINT usage_rollups_pkey PRIMARY KEY (organization_id, bucket_start, api_key_id, route_id, status_class)
);

DO $$
DECLARE
    tenant_table text;
BEGIN
    FOREACH tenant_table IN ARRAY ARRAY['usage_event_ids', 'usage_events', 'usage_rollups'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tenant_table);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tenant_table);
        EXECUTE format(
            'CREATE POLICY tenant ON %I TO tollway_metering '
            'USING (organization_id = nullif(current_setting(''tollway.organization_id'', true), '''')::uuid) '
            'WITH CHECK (organization_id = nullif(current_setting(''tollway.organization_id'', true), '''')::uuid)',
            tenant_table
        );
        EXECUTE format(
            'CREATE POLICY system ON %I TO tollway_metering_system USING (true) WITH CHECK (true)', tenant_table
        );
        EXECUTE format('GRANT SELECT ON %I TO tollway_metering', tenant_table);
        EXECUTE format('GRANT SELECT, INSERT ON %I TO tollway_metering_system', tenant_table);
    END LOOP;
END $$;
GRANT UPDATE, DELETE ON usage_rollups TO tollway_metering_system;

-- The week that arriving ids are filed under: one row. Ingesting transactions hold it FOR SHARE and the first one after
-- a Monday moves it on, which waits for all of them. So whoever files under the new week sees every id of the old one.
CREATE TABLE arrival_weeks (
    only_row boolean NOT NULL DEFAULT true,
    week date NOT NULL,
    CONSTRAINT arrival_weeks_pkey PRIMARY KEY (only_row),
    CONSTRAINT arrival_weeks_only_row CHECK (only_row)
);
COMMENT ON TABLE arrival_weeks IS 'not a tenant table: the week that arriving event ids are filed under';
INSERT INTO arrival_weeks (week) VALUES (date_trunc('week', now() AT TIME ZONE 'UTC')::date);
GRANT SELECT, UPDATE ON arrival_weeks TO tollway_metering_system;

-- How far each source has been taken in, written in the transaction of the events themselves.
CREATE TABLE ingest_offsets (
    source text NOT NULL,
    source_partition integer NOT NULL,
    next_offset bigint NOT NULL,
    update_time timestamptz NOT NULL,
    CONSTRAINT ingest_offsets_pkey PRIMARY KEY (source, source_partition)
);
COMMENT ON TABLE ingest_offsets IS 'not a tenant table: positions in journals and topics, which mix organizations';
GRANT SELECT, INSERT, UPDATE ON ingest_offsets TO tollway_metering_system;

-- What could not be taken in. One row per payload and reason, however often it is sent.
CREATE TABLE dead_letters (
    payload_hash bytea NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    source text NOT NULL,
    source_partition integer NOT NULL,
    payload bytea NOT NULL,
    create_time timestamptz NOT NULL,
    CONSTRAINT dead_letters_pkey PRIMARY KEY (payload_hash, reason)
);
COMMENT ON TABLE dead_letters IS 'not a tenant table: payloads that may name no organization, or a wrong one';
CREATE INDEX dead_letters_create_time_idx ON dead_letters (create_time);
GRANT SELECT, INSERT, DELETE ON dead_letters TO tollway_metering_system;

-- Makes the week's partition of a table. A function of the owner's, because the service's roles own nothing.
-- LIKE and ATTACH instead of PARTITION OF: the latter locks the parent against everybody.
CREATE FUNCTION create_week_partition(parent_name text, week date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = metering, pg_temp AS $$
DECLARE
    partition_name text := parent_name || '_w' || to_char(week, 'YYYYMMDD');
    lower_bound text := to_char(week, 'YYYY-MM-DD');
    upper_bound text := to_char(week + 7, 'YYYY-MM-DD');
BEGIN
    IF parent_name NOT IN ('usage_events', 'usage_event_ids') OR extract(isodow FROM week) <> 1 THEN
        RAISE EXCEPTION 'no week partition of % for %', parent_name, week;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('metering.create_week_partition'));
    IF to_regclass(format('metering.%I', partition_name)) IS NOT NULL THEN
        RETURN;
    END IF;
    IF parent_name = 'usage_events' THEN
        lower_bound := lower_bound || ' 00:00:00+00';
        upper_bound := upper_bound || ' 00:00:00+00';
    END IF;
    EXECUTE format('CREATE TABLE metering.%I (LIKE metering.%I INCLUDING ALL)', partition_name, parent_name);
    EXECUTE format('ALTER TABLE metering.%I ENABLE ROW LEVEL SECURITY', partition_name);
    EXECUTE format('ALTER TABLE metering.%I FORCE ROW LEVEL SECURITY', partition_name);
    EXECUTE format(
        'ALTER TABLE metering.%I ATTACH PARTITION metering.%I FOR VALUES FROM (%L) TO (%L)',
        parent_name, partition_name, lower_bound, upper_bound
    );
END $$;
REVOKE ALL ON FUNCTION create_week_partition(text, date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION create_week_partition(text, date) TO tollway_metering_system;

-- Drops the weeks of ids that end before a day. Refuses to touch the 35 days in which a repetition must be noticed.
CREATE FUNCTION drop_event_id_weeks(ended_before date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = metering, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    partition_name text;
    dropped integer := 0;
BEGIN
    IF ended_before > (now() AT TIME ZONE 'UTC')::date - 35 THEN
        RAISE EXCEPTION 'ids are kept for 35 days';
    END IF;
    FOR partition_name IN
        SELECT c.relname FROM pg_inherits i
        JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'metering.usage_event_ids'::regclass
        AND to_date(right(c.relname, 8), 'YYYYMMDD') + 7 <= ended_before
        ORDER BY c.relname
    LOOP
        EXECUTE format('DROP TABLE metering.%I', partition_name);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$;
REVOKE ALL ON FUNCTION drop_event_id_weeks(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION drop_event_id_weeks(date) TO tollway_metering_system;
