DROP TABLE audit_entries;
DROP FUNCTION refuse_audit_change();
