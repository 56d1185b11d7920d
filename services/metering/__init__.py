"""Metering: usage events in, each counted once; aggregates out."""
