-- What an e-mail says may be a token: it is stored sealed, and no longer than until the e-mail was delivered.

ALTER TABLE emails
    ALTER COLUMN parameters DROP NOT NULL,
    ADD COLUMN data_key_version integer,
    ADD COLUMN sealed_parameters bytea,
    ADD CONSTRAINT emails_sealed_parameters_check CHECK ((sealed_parameters IS NULL) = (data_key_version IS NULL));
COMMENT ON COLUMN emails.parameters IS 'of e-mails that an older release took; later ones have sealed_parameters';
COMMENT ON COLUMN emails.sealed_parameters IS 'what the template says (mesh/secretbox); gone once it was delivered';
COMMENT ON COLUMN emails.recipient IS 'personal: where it goes';

-- The trigger, not the service, forgets: neither a release of before nor a change by hand leaves anything.
CREATE FUNCTION forget_parameters() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.parameters := NULL;
    NEW.sealed_parameters := NULL;
    NEW.data_key_version := NULL;
    RETURN NEW;
END
$$;
CREATE TRIGGER emails_forget_parameters BEFORE UPDATE OF state ON emails
    FOR EACH ROW WHEN (NEW.state = 'delivered') EXECUTE FUNCTION forget_parameters();
