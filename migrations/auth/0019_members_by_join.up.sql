-- tollway:no-transaction
-- Members are listed in the order in which they joined.
CREATE INDEX CONCURRENTLY IF NOT EXISTS memberships_join_idx ON memberships (organization_id, create_time, person_id);
