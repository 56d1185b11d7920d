"""Asking the limiter in batches, what to do without it, and telling the client what is left."""
