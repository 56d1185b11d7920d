"""docs/audit.md names every RPC that changes something; `test_refused_calls.py` tries what it says."""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import MethodOptions

from contract.services import SERVICES
from tests.support.audit_page import documented


def test_every_rpc_that_changes_something_is_named_with_its_actions_or_a_reason() -> None:
    changing = {
        method.full_name
        for service in SERVICES.values()
        for method in service.descriptor.methods
        if method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS
    }
    named = documented()
    assert set(named) == changing
    assert [name for name, (actions, remark) in named.items() if not actions and not remark] == []
