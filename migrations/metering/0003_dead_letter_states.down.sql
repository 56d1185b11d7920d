GRANT DELETE ON dead_letters TO tollway_metering_system;
REVOKE UPDATE ON dead_letters FROM tollway_metering_system;
CREATE INDEX dead_letters_create_time_idx ON dead_letters (create_time);
DROP INDEX dead_letters_state_idx;
ALTER TABLE dead_letters
    DROP CONSTRAINT dead_letters_resolve_check,
    DROP CONSTRAINT dead_letters_state_check,
    DROP COLUMN resolver,
    DROP COLUMN resolve_time,
    DROP COLUMN state;
