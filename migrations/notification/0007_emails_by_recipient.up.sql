-- tollway:no-transaction
-- E-mails that are nobody's but the recipient's are limited by recipient.
CREATE INDEX CONCURRENTLY IF NOT EXISTS emails_recipient_idx ON emails (organization_id, recipient, create_time)
    WHERE organization_id = '00000000-0000-0000-0000-000000000000';
