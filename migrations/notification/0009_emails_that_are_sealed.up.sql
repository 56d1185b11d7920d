-- tollway:no-transaction
-- The rotation of data keys looks for what is sealed, and nearly all e-mails were delivered and have nothing sealed.
CREATE INDEX CONCURRENTLY IF NOT EXISTS emails_sealed_idx ON emails (email_id) WHERE data_key_version IS NOT NULL;
COMMENT ON INDEX emails_sealed_idx IS 'across tenants: the rotation of data keys goes by id';
