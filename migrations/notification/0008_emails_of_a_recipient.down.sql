COMMENT ON COLUMN jobs.last_error IS NULL;
COMMENT ON COLUMN emails.last_error IS NULL;
DROP INDEX emails_erase_idx;
