-- What was sealed cannot be read by the release of before: such e-mails fail there and end as dead letters.
DROP TRIGGER emails_forget_parameters ON emails;
DROP FUNCTION forget_parameters();
ALTER TABLE emails NO FORCE ROW LEVEL SECURITY;
UPDATE emails SET parameters = '{}' WHERE parameters IS NULL;
ALTER TABLE emails FORCE ROW LEVEL SECURITY;
ALTER TABLE emails
    DROP COLUMN sealed_parameters,
    DROP COLUMN data_key_version,
    ALTER COLUMN parameters SET NOT NULL;
