-- tollway:no-transaction
DROP INDEX CONCURRENTLY IF EXISTS emails_sealed_idx;
