"""What the gateway reads from the environment, beside what every process reads."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from graphql_gateway.callers.addresses import Network
from graphql_gateway.callers.admission import AdmissionLimits
from graphql_gateway.entrance.connections import EntranceLimits
from graphql_gateway.graph.cost import QueryLimits
from mesh.config import ProcessSettings


class GatewaySettings(ProcessSettings):
    """Settings of the gateway."""

    gateway_listen: str = "127.0.0.1:8000"
    gateway_metrics_listen: str = "127.0.0.1:9106"
    gateway_trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = ()
    """Networks whose `X-Forwarded-For` is believed, separated by commas."""
    gateway_body_bytes_max: int = Field(default=256 * 1024, ge=1_024)
    gateway_request_timeout_seconds: float = Field(default=15.0, gt=0, le=120)
    gateway_stop_seconds: float = Field(default=10.0, ge=0, le=120)
    gateway_head_seconds: float = Field(default=10.0, gt=0, le=120)
    gateway_idle_seconds: float = Field(default=75.0, gt=0, le=3_600)
    gateway_stall_seconds: float = Field(default=30.0, gt=0, le=3_600)
    gateway_connections_max: int = Field(default=4_096, ge=1)
    gateway_connections_per_address_max: int = Field(default=128, ge=1)
    gateway_address_per_minute: int = Field(default=1_200, ge=1)
    gateway_principal_per_minute: int = Field(default=600, ge=1)
    gateway_organization_per_minute: int = Field(default=3_000, ge=1)
    gateway_change_principal_per_minute: int = Field(default=30, ge=1)
    gateway_change_organization_per_minute: int = Field(default=120, ge=1)
    gateway_change_organization_per_day: int = Field(default=2_000, ge=1)
    gateway_sign_in_address_per_minute: int = Field(default=30, ge=1)
    gateway_sign_in_pair_per_minute: int = Field(default=10, ge=1)
    """Of one address at one account."""
    gateway_sign_in_account_per_minute: int = Field(default=30, ge=1)
    """Of one account from all addresses that failed at it."""
    gateway_query_depth_max: int = Field(default=10, ge=1)
    gateway_query_aliases_max: int = Field(default=15, ge=0)
    gateway_query_directives_max: int = Field(default=10, ge=0)
    gateway_query_tokens_max: int = Field(default=1_000, ge=10)
    gateway_query_cost_max: int = Field(default=5_000, ge=10)
    gateway_query_rows_max: int = Field(default=2_000, ge=1)

    @field_validator("gateway_trusted_proxies", mode="before")
    @classmethod
    def _networks(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(ipaddress.ip_network(part.strip()) for part in value.split(",") if part.strip())

    @property
    def production(self) -> bool:
        """Say whether strangers can reach this installation."""
        return self.environment == "production"

    def entrance_limits(self) -> EntranceLimits:
        """Return what connections may hold."""
        return EntranceLimits(
            head_seconds=self.gateway_head_seconds,
            idle_seconds=self.gateway_idle_seconds,
            stall_seconds=self.gateway_stall_seconds,
            connections_max=self.gateway_connections_max,
            connections_per_address_max=self.gateway_connections_per_address_max,
        )

    def admission_limits(self) -> AdmissionLimits:
        """Return how much one caller may use."""
        return AdmissionLimits(
            address_per_minute=self.gateway_address_per_minute,
            principal_per_minute=self.gateway_principal_per_minute,
            organization_per_minute=self.gateway_organization_per_minute,
            change_principal_per_minute=self.gateway_change_principal_per_minute,
            change_organization_per_minute=self.gateway_change_organization_per_minute,
            change_organization_per_day=self.gateway_change_organization_per_day,
            sign_in_address_per_minute=self.gateway_sign_in_address_per_minute,
            sign_in_pair_per_minute=self.gateway_sign_in_pair_per_minute,
            sign_in_account_per_minute=self.gateway_sign_in_account_per_minute,
        )

    def query_limits(self) -> QueryLimits:
        """Return what one query may ask for."""
        return QueryLimits(
            depth_max=self.gateway_query_depth_max,
            aliases_max=self.gateway_query_aliases_max,
            directives_max=self.gateway_query_directives_max,
            tokens_max=self.gateway_query_tokens_max,
            cost_max=self.gateway_query_cost_max,
            rows_max=self.gateway_query_rows_max,
        )
