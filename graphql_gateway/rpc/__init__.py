"""The one way to the services."""
