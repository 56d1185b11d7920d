-- tollway:no-transaction
-- Erasing an address goes by the address, in all organizations.
CREATE INDEX CONCURRENTLY IF NOT EXISTS emails_erase_idx ON emails (lower(recipient));
COMMENT ON INDEX emails_erase_idx IS 'across tenants: erasing an address goes by the address';
COMMENT ON COLUMN emails.last_error IS 'personal: a mail server may repeat the address';
COMMENT ON COLUMN jobs.last_error IS 'personal: a mail server may repeat the address';
