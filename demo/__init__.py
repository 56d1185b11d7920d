"""What the local stack shows itself with."""
