-- Nothing that a tenant asks for makes a job here: the tenant role only reads.
REVOKE INSERT ON jobs FROM tollway_metering;
