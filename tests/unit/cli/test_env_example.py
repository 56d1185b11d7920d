"""`.env.example` names every variable that a process reads, and no other."""

from __future__ import annotations

import importlib
import re

import pytest

from cli.stack.parts import ROOT, parts
from mesh.config import ENV_PREFIX, ProcessSettings

TEXT = (ROOT / ".env.example").read_text(encoding="utf-8")
NAMES = re.findall(r"^(?:# )?(TOLLWAY_[A-Z_]+)=", TEXT, re.MULTILINE)
MODULES = [
    "services.auth.config",
    "services.ratelimit.config",
    "services.metering.config",
    "services.billing.config",
    "services.notification.config",
    "edge_proxy.config",
    "graphql_gateway.config",
]
OUTSIDE_SETTINGS = {"TOLLWAY_UPSTREAM_URL", "TOLLWAY_OWNER_DSN", "TOLLWAY_POSTGRES_ADMIN_DSN"}


def settings_of(module):
    found = vars(importlib.import_module(module)).values()
    settings = [each for each in found if isinstance(each, type) and issubclass(each, ProcessSettings)]
    return [each for each in settings if each.__module__ == module]


def fields():
    return {ENV_PREFIX + name.upper() for m in MODULES for each in settings_of(m) for name in each.model_fields}


def test_it_names_what_is_read_and_nothing_else():
    assert set(NAMES) == fields() | OUTSIDE_SETTINGS
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize("module", MODULES)
def test_every_process_has_settings(module):
    assert len(settings_of(module)) == 1


def test_the_stack_sets_everything_that_has_no_default(installation):
    given = {part.name: part.environment for part in parts(installation, {})}
    for module in MODULES:
        (settings,) = settings_of(module)
        name = module.split(".")[-2].replace("edge_proxy", "edge").replace("graphql_gateway", "gateway")
        required = {ENV_PREFIX + n.upper() for n, field in settings.model_fields.items() if field.is_required()}
        assert required <= set(given[name]), name
