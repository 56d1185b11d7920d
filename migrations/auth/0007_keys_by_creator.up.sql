-- tollway:no-transaction
-- A member's own keys are asked for by name with every query of their usage.
CREATE INDEX CONCURRENTLY IF NOT EXISTS api_keys_creator_idx ON api_keys (organization_id, creator_id, api_key_id);
