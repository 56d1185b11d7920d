-- What is on offer, and who pays for what.

CREATE TABLE plans (
    plan_id text NOT NULL,
    version integer NOT NULL,
    name text NOT NULL,
    currency_code text NOT NULL,
    base_fee_minor bigint NOT NULL,
    included_requests bigint,
    overage_unit_price numeric,
    requests_per_minute bigint NOT NULL,
    requests_per_month_max bigint,
    create_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT plans_pkey PRIMARY KEY (plan_id, version),
    CONSTRAINT plans_plan_id_check CHECK (plan_id ~ '^[a-z][a-z0-9_-]{0,62}$'),
    CONSTRAINT plans_currency_code_check CHECK (currency_code ~ '^[A-Z]{3}$'),
    CONSTRAINT plans_base_fee_minor_check CHECK (base_fee_minor >= 0),
    CONSTRAINT plans_included_requests_check CHECK (included_requests >= 0),
    CONSTRAINT plans_overage_check CHECK (overage_unit_price IS NULL OR included_requests IS NOT NULL),
    CONSTRAINT plans_requests_per_minute_check CHECK (requests_per_minute > 0),
    CONSTRAINT plans_requests_per_month_max_check CHECK (requests_per_month_max > 0)
);
COMMENT ON TABLE plans IS 'not a tenant table: the price list, the same for everybody; a version never changes once it is there';
GRANT SELECT ON plans TO tollway_billing;
GRANT SELECT ON plans TO tollway_billing_system;

INSERT INTO plans (plan_id, version, name, currency_code, base_fee_minor, included_requests, overage_unit_price,
                   requests_per_minute, requests_per_month_max)
VALUES ('free', 1, 'Free', 'USD', 0, 1000, NULL, 10, 1000),
       ('starter', 1, 'Starter', 'USD', 1000, 10000, 0.01, 60, NULL),
       ('pro', 1, 'Pro', 'USD', 5000, NULL, NULL, 300, NULL);

CREATE TABLE subscriptions (
    organization_id uuid NOT NULL,
    subscription_id uuid NOT NULL,
    plan_id text NOT NULL,
    plan_version integer NOT NULL,
    policy_version bigint NOT NULL,
    start_time timestamptz NOT NULL,
    end_time timestamptz,
    create_time timestamptz NOT NULL,
    CONSTRAINT subscriptions_pkey PRIMARY KEY (organization_id, subscription_id),
    CONSTRAINT subscriptions_plan_fkey FOREIGN KEY (plan_id, plan_version) REFERENCES plans (plan_id, version),
    -- Usage is summed in quarter hours, so a period can only begin on one.
    CONSTRAINT subscriptions_start_time_check CHECK (extract(epoch FROM start_time) % 900 = 0),
    CONSTRAINT subscriptions_end_time_check CHECK (end_time > start_time)
);
CREATE UNIQUE INDEX subscriptions_active_key ON subscriptions (organization_id) WHERE end_time IS NULL;
ALTER TABLE subscriptions ENABLE ROW LEVEL SECURITY;
ALTER TABLE subscriptions FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON subscriptions TO tollway_billing
    USING (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid)
    WITH CHECK (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid);
CREATE POLICY system ON subscriptions TO tollway_billing_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON subscriptions TO tollway_billing;
GRANT SELECT, UPDATE ON subscriptions TO tollway_billing_system;
