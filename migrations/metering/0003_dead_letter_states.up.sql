-- What an operator has decided about a dead letter. The health check counts those that wait, so they have an index of
-- their own, in the order in which they are listed.
ALTER TABLE dead_letters
    ADD COLUMN state text NOT NULL DEFAULT 'waiting',
    ADD COLUMN resolve_time timestamptz,
    ADD COLUMN resolver text,
    ADD CONSTRAINT dead_letters_state_check CHECK (state IN ('waiting', 'replayed', 'dropped')),
    ADD CONSTRAINT dead_letters_resolve_check CHECK ((state = 'waiting') = (resolve_time IS NULL));
CREATE INDEX dead_letters_state_idx ON dead_letters (state, create_time, payload_hash, reason);
DROP INDEX dead_letters_create_time_idx;
GRANT UPDATE ON dead_letters TO tollway_metering_system;
REVOKE DELETE ON dead_letters FROM tollway_metering_system;
