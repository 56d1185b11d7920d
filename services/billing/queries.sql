-- name: select_plans
-- The newest version of each plan, cheapest first, behind a place in that order.
SELECT plan_id, version, name, currency_code, base_fee_minor, included_requests, overage_unit_price,
       requests_per_minute, requests_per_month_max
FROM plans AS p
WHERE version = (SELECT max(version) FROM plans AS newest WHERE newest.plan_id = p.plan_id)
  AND (base_fee_minor, plan_id) > ($1, $2)
ORDER BY base_fee_minor, plan_id
LIMIT $3

-- name: select_plan
-- One version; 0 means the newest.
SELECT plan_id, version, name, currency_code, base_fee_minor, included_requests, overage_unit_price,
       requests_per_minute, requests_per_month_max
FROM plans
WHERE plan_id = $1 AND ($2 = 0 OR version = $2)
ORDER BY version DESC
LIMIT 1

-- name: select_active_subscription
SELECT subscription_id, organization_id, plan_id, plan_version, policy_version, start_time
FROM subscriptions
WHERE organization_id = $1 AND end_time IS NULL

-- name: insert_subscription
-- Nothing is inserted where the organization has an active one: two who subscribe at once end with one. The version of
-- its limits is the time in microseconds, so it is greater than that of every earlier subscription.
INSERT INTO subscriptions (organization_id, subscription_id, plan_id, plan_version, policy_version, start_time,
                           create_time)
SELECT $1, $2, $3, $4, greatest($5::bigint, coalesce(max(policy_version) + 1, 0)), $6, $7
FROM subscriptions WHERE organization_id = $1
ON CONFLICT (organization_id) WHERE end_time IS NULL DO NOTHING
RETURNING subscription_id, organization_id, plan_id, plan_version, policy_version, start_time
