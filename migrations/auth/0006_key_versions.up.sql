-- A version per key and per organization, so that whoever holds a grant can tell an older one from a newer one. A grant's
-- version is the sum of both: each only grows, and one statement reads both from one snapshot.

ALTER TABLE organizations ADD COLUMN version bigint NOT NULL DEFAULT 1;
ALTER TABLE api_keys ADD COLUMN version bigint NOT NULL DEFAULT 1;

-- The trigger, not the service, counts: a change made by hand in psql counts as well. The row's lock keeps writers apart,
-- so the order of versions is the order of commits.
CREATE FUNCTION count_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := OLD.version + 1;
    RETURN NEW;
END
$$;
-- last_use_time is left out, as it is for the notice: no grant says it.
CREATE TRIGGER api_keys_count_version
    BEFORE UPDATE OF mode, scopes, allowed_ips, external_subject, expire_time, revoke_time, digest ON api_keys
    FOR EACH ROW EXECUTE FUNCTION count_version();
CREATE TRIGGER organizations_count_version BEFORE UPDATE OF state ON organizations
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION count_version();
