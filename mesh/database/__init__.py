"""PostgreSQL: connections, named statements, migrations, idempotency."""
