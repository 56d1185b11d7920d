"""What the commands need that talk to a running Tollway: where it is, who asks, the calls, and what is printed."""
