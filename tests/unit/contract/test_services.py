"""One catalogue of services: whatever spells them out elsewhere must agree with it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from cli.stack.ports import DEFAULT_PORTS
from contract.services import SERVICES
from mesh.config import ProcessSettings
from mesh.rpc.client import Clients

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", SERVICES)
def test_whatever_names_a_service_agrees_with_the_catalogue(name: str) -> None:
    service = SERVICES[name]
    settings = importlib.import_module(f"services.{name}.config")
    (own,) = [value for value in vars(settings).values() if f"{name}_listen" in getattr(value, "model_fields", {})]
    assert own.model_fields[f"{name}_listen"].default == service.address
    assert own.model_fields[f"{name}_metrics_listen"].default == service.metrics_address
    assert ProcessSettings.model_fields[f"{name}_address"].default == service.address
    assert (DEFAULT_PORTS[name], DEFAULT_PORTS[f"{name}-metrics"]) == (service.rpc_port, service.metrics_port)
    assert hasattr(Clients, name)
    assert service.descriptor.full_name.startswith(f"tollway.{name}.v1.")


@pytest.mark.parametrize("name", SERVICES)
def test_a_process_is_what_the_catalogue_says(name: str) -> None:
    spec = importlib.import_module(f"services.{name}.__main__").SPEC
    assert (spec.name, spec.descriptor, tuple(spec.roles)) == (name, SERVICES[name].descriptor, SERVICES[name].roles)


@pytest.mark.parametrize("name", SERVICES)
def test_the_example_environment_agrees_with_the_catalogue(name: str) -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    told = dict(line.split("#")[0].strip().partition("=")[::2] for line in lines if line.startswith("TOLLWAY_"))
    service, prefix = SERVICES[name], f"TOLLWAY_{name.upper()}"
    assert told[f"{prefix}_ADDRESS"] == told[f"{prefix}_LISTEN"] == service.address
    assert told[f"{prefix}_METRICS_LISTEN"] == service.metrics_address


def test_every_service_folder_and_every_schema_is_in_the_catalogue_and_no_other() -> None:
    for parent in ("services", "migrations", "proto/tollway"):
        folders = {each.name for each in (ROOT / parent).iterdir() if each.is_dir() and each.name[0] not in "._"}
        assert folders - {"events", "options"} == set(SERVICES), parent


def test_no_port_is_given_twice() -> None:
    assert len(set(DEFAULT_PORTS.values())) == len(DEFAULT_PORTS)


def test_no_other_module_lists_the_services() -> None:
    """A list of its own is how a module falls behind."""
    listed = [
        path.relative_to(ROOT)
        for folder in ("mesh", "cli", "services", "edge_proxy", "graphql_gateway")
        for path in (ROOT / folder).rglob("*.py")
        if all(f'"{name}"' in path.read_text(encoding="utf-8") for name in SERVICES)
    ]
    assert listed == [Path("mesh/rpc/client.py")]  # a typed stub for each
