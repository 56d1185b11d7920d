"""Tells people things: templates and the delivery of e-mail."""
