-- name: select_organization
SELECT organization_id, name, state, external_id, contact_email, billing_email, currency_code, time_zone, metadata,
       create_time
FROM organizations
WHERE organization_id = $1
