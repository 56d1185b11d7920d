"""Who is who: organizations, people, sessions, service accounts, API keys and the audit log."""
