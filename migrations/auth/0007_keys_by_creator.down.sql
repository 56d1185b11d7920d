-- tollway:no-transaction
DROP INDEX CONCURRENTLY IF EXISTS api_keys_creator_idx;
