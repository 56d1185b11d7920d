"""A small JSON API that the local stack puts behind the edge, and that counts what it was asked."""
