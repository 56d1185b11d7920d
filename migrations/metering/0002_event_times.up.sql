-- Why an event's own times are not believed, and the start that it claimed. Both are null for believed events.
ALTER TABLE usage_events ADD COLUMN time_suspect text, ADD COLUMN claimed_start_time_us bigint;
