"""HTTP/1.1 on both sides of the proxy; knows no key, limit or event."""
