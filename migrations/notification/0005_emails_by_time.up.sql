-- tollway:no-transaction
-- Every e-mail that is taken asks how many its organization had in the last hour.
CREATE INDEX CONCURRENTLY IF NOT EXISTS emails_create_time_idx ON emails (organization_id, create_time);
