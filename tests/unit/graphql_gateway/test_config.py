"""The gateway's settings."""

from __future__ import annotations

import ipaddress

import pytest
from pydantic import ValidationError

from graphql_gateway.config import GatewaySettings
from tests.support.processes import process_variables


def test_settings_become_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, text in process_variables("graphql_gateway").items():
        monkeypatch.setenv(variable, text)
    monkeypatch.setenv("TOLLWAY_GATEWAY_TRUSTED_PROXIES", "10.0.0.0/8, 2001:db8::/32")
    monkeypatch.setenv("TOLLWAY_GATEWAY_ADDRESS_PER_MINUTE", "7")
    monkeypatch.setenv("TOLLWAY_GATEWAY_QUERY_DEPTH_MAX", "3")
    settings = GatewaySettings()
    assert settings.gateway_trusted_proxies == (
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_network("2001:db8::/32"),
    )
    assert settings.admission_limits().address_per_minute == 7
    assert settings.query_limits().depth_max == 3
    assert not settings.production


@pytest.mark.parametrize(
    ("name", "value"), [("GATEWAY_TRUSTED_PROXIES", "10.0.0.1/8"), ("GATEWAY_ADDRESS_PER_MINUTE", "0")]
)
def test_wrong_settings_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    for variable, text in process_variables("graphql_gateway").items():
        monkeypatch.setenv(variable, text)
    monkeypatch.setenv(f"TOLLWAY_{name}", value)
    with pytest.raises(ValidationError):
        GatewaySettings()
