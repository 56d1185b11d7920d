"""Ratelimit on the wire: protos in and out, one module per resource."""
