"""What `ratelimit` owns."""
