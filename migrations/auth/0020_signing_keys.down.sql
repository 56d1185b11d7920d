DROP TABLE signing_keys;
DROP FUNCTION notify_signing_keys();
