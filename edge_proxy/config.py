"""What the edge reads from its environment. Routes and upstreams have a file of their own, see `routes_file`."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationInfo, field_validator

from edge_proxy.http1.server.forwarding import Trust
from mesh.config import ProcessSettings, VersionedKeys, host_port, versioned_keys

DEFAULT_ROUTES_PATH: Final = Path(__file__).parent / "routing" / "default.yaml"
SEGMENTS_MIN: Final = 4


class EdgeSettings(ProcessSettings):
    """Settings of supervisor and workers."""

    edge_listen: str = "127.0.0.1:8080"
    edge_admin_listen: str = "127.0.0.1:8081"
    edge_workers: int = Field(default=0, ge=0, le=256)
    edge_config: Path = DEFAULT_ROUTES_PATH
    edge_data_dir: Path = Path("var/edge")
    edge_decision_deadline_ms: int = Field(default=50, ge=1, le=10_000)
    edge_drain_seconds: float = Field(default=30.0, gt=0, le=3_600)
    # Room for one event of 4 KiB, the largest, is reserved for each request in flight.
    edge_journal_bytes_max: int = Field(default=1 << 30, ge=1 << 16)
    edge_journal_segment_bytes_max: int = Field(default=16 << 20, ge=1 << 14)
    # 0 leaves it to the kernel when pages reach the disk.
    edge_journal_sync_ms: int = Field(default=1_000, ge=0, le=60_000)
    # Per worker. Proxies that are trusted may have more connections than one client.
    edge_connections_max: int = Field(default=10_000, ge=1, le=1_000_000)
    edge_connections_per_client_max: int = Field(default=1_000, ge=1, le=1_000_000)
    # Networks, separated by commas, whose word on the client's address is taken.
    edge_trusted_proxies: str = ""
    edge_forwarded_field: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"
    edge_proxy_protocol: bool = False
    # The share of requests that get a line in the log, 0 to 1.
    edge_access_log_rate: float = Field(default=0.01, ge=0, le=1)
    key_peppers: VersionedKeys
    kafka_bootstrap: str | None = None

    @field_validator("edge_listen", "edge_admin_listen")
    @classmethod
    def _is_host_port(cls, value: str) -> str:
        host_port(value)
        return value

    @field_validator("edge_journal_segment_bytes_max")
    @classmethod
    def _is_small_beside_the_journal(cls, value: int, info: ValidationInfo) -> int:
        # Only closed segments are dropped; one that filled the journal would never be closed.
        journal_bytes_max = info.data.get("edge_journal_bytes_max")
        if journal_bytes_max is not None and value * SEGMENTS_MIN > journal_bytes_max:
            raise ValueError(f"the journal must hold at least {SEGMENTS_MIN} segments")
        return value

    @field_validator("edge_trusted_proxies")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        for network in _words(value):
            ip_network(network)
        return value

    @field_validator("edge_proxy_protocol")
    @classmethod
    def _has_proxies_to_trust(cls, value: bool, info: ValidationInfo) -> bool:
        if value and not info.data.get("edge_trusted_proxies"):
            raise ValueError("needs TOLLWAY_EDGE_TRUSTED_PROXIES: anybody could claim any address")
        return value

    def trust(self) -> Trust:
        """Return the proxies in front of the edge."""
        networks = tuple(ip_network(network) for network in _words(self.edge_trusted_proxies))
        return Trust(networks, self.edge_forwarded_field)

    def peppers(self) -> list[bytes]:
        """Return the peppers, the one for new keys first."""
        keys = versioned_keys(self.key_peppers.get_secret_value())
        return [keys[version] for version in sorted(keys, reverse=True)]


def _words(value: str) -> list[str]:
    return [word for part in value.split(",") if (word := part.strip())]
