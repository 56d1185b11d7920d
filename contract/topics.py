"""The Kafka topics that the edge writes and metering reads, and what their records carry."""

from __future__ import annotations

from typing import Final

USAGE_EVENTS: Final = "usage-events"
"""One record per event: the serialised `tollway.events.v1.UsageEvent`."""

SCHEMA_HEADER: Final = ("schema", b"tollway.events.v1.UsageEvent/1")
"""On every record, so that a reader of the topic knows what its value is."""
