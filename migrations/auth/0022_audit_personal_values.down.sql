ALTER TABLE audit_entries DROP CONSTRAINT audit_entries_personal_check;
ALTER TABLE audit_entries DISABLE TRIGGER audit_entries_append_only;
ALTER TABLE audit_entries NO FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_personal_values NO FORCE ROW LEVEL SECURITY;
UPDATE audit_entries AS e SET actor = p.value FROM audit_personal_values AS p
WHERE e.actor = '(personal 1)' AND e.personal_count > 0
    AND p.organization_id = e.organization_id AND p.audit_entry_id = e.audit_entry_id AND p.position = 1;
ALTER TABLE audit_entries FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_entries ENABLE TRIGGER audit_entries_append_only;
ALTER TABLE audit_entries DROP COLUMN personal_count;
DROP TABLE audit_personal_values;
