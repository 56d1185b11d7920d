-- tollway:no-transaction
DROP INDEX CONCURRENTLY IF EXISTS api_keys_tenant_prefix_idx;
DROP INDEX CONCURRENTLY IF EXISTS api_keys_prefix_idx;
DROP INDEX CONCURRENTLY IF EXISTS api_keys_usable_creator_idx;
DROP INDEX CONCURRENTLY IF EXISTS api_keys_usable_idx;
DROP INDEX CONCURRENTLY IF EXISTS api_keys_mode_idx;
