DROP INDEX audit_entries_resource_idx;
DROP INDEX audit_entries_actor_idx;
DROP INDEX audit_entries_kind_idx;
DROP INDEX audit_entries_action_idx;
DROP INDEX audit_entries_time_idx;
ALTER TABLE audit_entries DROP COLUMN action_kind;
