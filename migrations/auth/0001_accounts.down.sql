DROP TABLE service_accounts;
DROP TABLE platform_roles;
DROP TABLE memberships;
DROP TABLE people;
DROP TABLE organizations;
