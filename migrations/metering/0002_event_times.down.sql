ALTER TABLE usage_events DROP COLUMN claimed_start_time_us, DROP COLUMN time_suspect;
