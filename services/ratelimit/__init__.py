"""Ratelimit: limits and quotas, decided exactly across every edge."""
