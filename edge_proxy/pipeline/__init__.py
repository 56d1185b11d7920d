"""One request's way: route, key, limit, upstream, record."""
