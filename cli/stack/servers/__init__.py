"""The servers that the processes stand on: PostgreSQL, Redis, Kafka, a mail catcher."""
