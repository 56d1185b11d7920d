"""Organizations, people, API keys, the audit log: what `auth` owns."""
