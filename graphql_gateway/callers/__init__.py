"""Who calls, from where, and how much of the gateway they may use."""
