"""Which key may do what: a cache that `auth` pushes into, and that survives `auth` being away."""
