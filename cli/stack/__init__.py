"""The local stack: every part of Tollway, real, started and stopped by one process."""
