-- The limits in force, one row per organization. The windows are one document because they are always read and
-- replaced as a whole: a policy of version n is never mixed with one of version n + 1.
CREATE TABLE policies (
    organization_id uuid NOT NULL,
    version bigint NOT NULL,
    windows jsonb NOT NULL,
    update_time timestamptz NOT NULL,
    CONSTRAINT policies_pkey PRIMARY KEY (organization_id),
    CONSTRAINT policies_version_positive CHECK (version > 0)
);

ALTER TABLE policies ENABLE ROW LEVEL SECURITY;
ALTER TABLE policies FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON policies TO tollway_ratelimit
    USING (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid)
    WITH CHECK (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid);
CREATE POLICY system ON policies TO tollway_ratelimit_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON policies TO tollway_ratelimit;
GRANT SELECT ON policies TO tollway_ratelimit_system;
