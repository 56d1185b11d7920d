"""Usage events from the request to whoever counts them."""
