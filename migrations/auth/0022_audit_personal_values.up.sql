-- What tells who somebody is does not stand in the audit log, which is for good, but beside it, where it can be erased.

CREATE TABLE audit_personal_values (
    organization_id uuid NOT NULL,
    audit_entry_id uuid NOT NULL,
    position integer NOT NULL,
    value text NOT NULL,
    person_id uuid,
    CONSTRAINT audit_personal_values_pkey PRIMARY KEY (organization_id, audit_entry_id, position),
    CONSTRAINT audit_personal_values_audit_entry_id_fkey FOREIGN KEY (organization_id, audit_entry_id)
        REFERENCES audit_entries (organization_id, audit_entry_id)
);
COMMENT ON COLUMN audit_personal_values.position IS 'the value stands for the mark (personal <position>) in the entry';
COMMENT ON COLUMN audit_personal_values.value IS 'personal: an e-mail address or a name out of an audit entry';
COMMENT ON COLUMN audit_personal_values.person_id IS 'whose value it is, where the entry is about that person';
CREATE INDEX audit_personal_values_value_idx ON audit_personal_values (lower(value));
COMMENT ON INDEX audit_personal_values_value_idx IS 'across tenants: erasing an address goes by the address';
CREATE INDEX audit_personal_values_person_id_idx ON audit_personal_values (person_id) WHERE person_id IS NOT NULL;
COMMENT ON INDEX audit_personal_values_person_id_idx IS 'across tenants: erasing a person goes by the person';
ALTER TABLE audit_personal_values ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_personal_values FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON audit_personal_values TO tollway_auth
    USING (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid)
    WITH CHECK (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid);
CREATE POLICY system ON audit_personal_values TO tollway_auth_system USING (true) WITH CHECK (true);
-- Nobody changes a value. The system role alone removes it.
GRANT SELECT, INSERT ON audit_personal_values TO tollway_auth;
GRANT SELECT, INSERT, DELETE ON audit_personal_values TO tollway_auth_system;

ALTER TABLE audit_entries ADD COLUMN personal_count integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN audit_entries.personal_count IS 'how many values were set aside in audit_personal_values';

-- Refused sign-ins named their account in the entry. The owner sets those addresses aside as well: this once, inside
-- the transaction of the migration, the locks of the log are off.
ALTER TABLE audit_entries DISABLE TRIGGER audit_entries_append_only;
ALTER TABLE audit_entries NO FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_personal_values NO FORCE ROW LEVEL SECURITY;
INSERT INTO audit_personal_values (organization_id, audit_entry_id, position, value)
SELECT organization_id, audit_entry_id, 1, actor FROM audit_entries WHERE strpos(actor, '@') > 0;
UPDATE audit_entries SET actor = '(personal 1)', personal_count = 1 WHERE strpos(actor, '@') > 0;
ALTER TABLE audit_personal_values FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_entries FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_entries ENABLE TRIGGER audit_entries_append_only;

-- From now on no entry holds anything like an address, whoever writes it.
ALTER TABLE audit_entries ADD CONSTRAINT audit_entries_personal_check CHECK (
    strpos(actor || resource || details::text || coalesce(before::text, '') || coalesce(after::text, ''), '@') = 0
) NOT VALID;
