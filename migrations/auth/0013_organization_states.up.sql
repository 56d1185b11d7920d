-- What billing says of an organization stands beside what the operator says, so that neither lifts what the other has
-- laid down. `state` stays the operator's.

ALTER TABLE organizations DROP CONSTRAINT organizations_state_check;
ALTER TABLE organizations
    ADD COLUMN plan_id text NOT NULL DEFAULT '',
    ADD COLUMN restricted boolean NOT NULL DEFAULT false,
    ADD COLUMN suspended boolean NOT NULL DEFAULT false,
    ADD COLUMN state_version bigint NOT NULL DEFAULT 0,
    ADD COLUMN suspend_reason text NOT NULL DEFAULT '',
    ADD COLUMN delete_time timestamptz,
    -- What holds: deleted before suspended by either before active.
    ADD COLUMN effective_state text NOT NULL GENERATED ALWAYS AS (
        CASE WHEN state = 'deleted' THEN 'deleted' WHEN state = 'suspended' OR suspended THEN 'suspended' ELSE 'active' END
    ) STORED,
    ADD CONSTRAINT organizations_state_check CHECK (state IN ('active', 'suspended', 'deleted')),
    ADD CONSTRAINT organizations_plan_id_check CHECK (char_length(plan_id) <= 100),
    ADD CONSTRAINT organizations_suspend_reason_check CHECK (char_length(suspend_reason) <= 500),
    ADD CONSTRAINT organizations_delete_time_check CHECK ((state = 'deleted') = (delete_time IS NOT NULL));

-- A grant says all of these.
DROP TRIGGER organizations_count_version ON organizations;
DROP TRIGGER organizations_notify_state ON organizations;
CREATE TRIGGER organizations_count_version BEFORE UPDATE OF state, plan_id, restricted, suspended ON organizations
    FOR EACH ROW WHEN ((OLD.state, OLD.plan_id, OLD.restricted, OLD.suspended)
                       IS DISTINCT FROM (NEW.state, NEW.plan_id, NEW.restricted, NEW.suspended))
    EXECUTE FUNCTION count_version();
CREATE TRIGGER organizations_notify_state AFTER UPDATE OF state, plan_id, restricted, suspended ON organizations
    FOR EACH ROW WHEN ((OLD.state, OLD.plan_id, OLD.restricted, OLD.suspended)
                       IS DISTINCT FROM (NEW.state, NEW.plan_id, NEW.restricted, NEW.suspended))
    EXECUTE FUNCTION notify_organization_change();

-- Deleted is for good, whoever asks.
CREATE FUNCTION refuse_restored_organization() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a deleted organization stays deleted' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER organizations_stay_deleted BEFORE UPDATE OF state, delete_time ON organizations
    FOR EACH ROW WHEN (OLD.state = 'deleted'
                       AND (OLD.state, OLD.delete_time) IS DISTINCT FROM (NEW.state, NEW.delete_time))
    EXECUTE FUNCTION refuse_restored_organization();

-- Organizations and memberships are changed by the system role alone, and their RPCs are replayed as others are.
GRANT INSERT ON idempotency_keys TO tollway_auth_system;
