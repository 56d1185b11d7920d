-- tollway:no-transaction
-- Pages of one mode.
CREATE INDEX CONCURRENTLY IF NOT EXISTS api_keys_mode_idx ON api_keys (organization_id, mode, api_key_id);
-- Pages of usable keys, however many were revoked before.
CREATE INDEX CONCURRENTLY IF NOT EXISTS api_keys_usable_idx ON api_keys (organization_id, api_key_id)
    WHERE revoke_time IS NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS api_keys_usable_creator_idx ON api_keys (organization_id, creator_id, api_key_id)
    WHERE revoke_time IS NULL;
-- What imported keys begin with, over all tenants and within one.
CREATE INDEX CONCURRENTLY IF NOT EXISTS api_keys_prefix_idx ON api_keys (key_prefix)
    WHERE key_prefix <> '' AND revoke_time IS NULL;
COMMENT ON INDEX api_keys_prefix_idx IS 'across tenants: an edge knows how a key begins before it knows the tenant';
CREATE INDEX CONCURRENTLY IF NOT EXISTS api_keys_tenant_prefix_idx ON api_keys (organization_id, key_prefix)
    WHERE key_prefix <> '' AND revoke_time IS NULL;
