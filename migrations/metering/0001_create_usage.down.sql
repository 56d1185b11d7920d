DROP FUNCTION drop_event_id_weeks(date);
DROP FUNCTION create_week_partition(text, date);
DROP TABLE dead_letters;
DROP TABLE ingest_offsets;
DROP TABLE arrival_weeks;
DROP TABLE usage_rollups;
DROP TABLE usage_events;
DROP TABLE usage_event_ids;
