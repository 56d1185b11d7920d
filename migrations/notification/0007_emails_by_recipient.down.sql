-- tollway:no-transaction
DROP INDEX CONCURRENTLY IF EXISTS emails_recipient_idx;
