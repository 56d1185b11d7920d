-- Where a change came from, and what it changed: an entry has to stand on its own years later.

ALTER TABLE audit_entries
    ADD COLUMN actor_kind text NOT NULL DEFAULT '',
    ADD COLUMN address text NOT NULL DEFAULT '',
    ADD COLUMN request_id text NOT NULL DEFAULT '',
    ADD COLUMN before jsonb,
    ADD COLUMN after jsonb,
    ADD CONSTRAINT audit_entries_before_check CHECK (before IS NULL OR jsonb_typeof(before) = 'object'),
    ADD CONSTRAINT audit_entries_after_check CHECK (after IS NULL OR jsonb_typeof(after) = 'object');
