-- tollway:no-transaction
DROP INDEX CONCURRENTLY IF EXISTS memberships_join_idx;
