"""What a process is made of: run, stop, health."""
