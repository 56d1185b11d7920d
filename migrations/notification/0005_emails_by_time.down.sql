-- tollway:no-transaction
DROP INDEX CONCURRENTLY IF EXISTS emails_create_time_idx;
