"""Plans, subscriptions and what they cost."""
