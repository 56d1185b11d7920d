ALTER TABLE audit_entries
    DROP COLUMN actor_kind,
    DROP COLUMN address,
    DROP COLUMN request_id,
    DROP COLUMN before,
    DROP COLUMN after;
