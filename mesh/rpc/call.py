"""What is known of the call that is being handled, besides who makes it: for audit logs and throttles."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from mesh.rpc.client_address import client_address, client_user_agent
from mesh.rpc.process_tokens import ProcessKeys

USER_AGENT: Final = "user-agent"
USER_AGENT_LENGTH_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The call that is being handled.

    Args:
        request_id: Of the request that it is part of.
        peer: gRPC's name of the other end, for example `ipv4:192.0.2.1:50000`.
        metadata: As it came.
        process_keys: The public keys of all processes; prove that one of ours named an address.
        service: Who is called.
    """

    request_id: str = ""
    peer: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    process_keys: ProcessKeys | None = field(default=None, repr=False)
    service: str = ""

    @property
    def address(self) -> str:
        """Return the client's address; empty where nobody called."""
        if self.process_keys is None:
            return ""
        return client_address(self.metadata, self.peer, self.process_keys, self.service)

    @property
    def user_agent(self) -> str:
        """Return what the client calls itself; may be empty."""
        vouched = ""
        if self.process_keys is not None:
            vouched = client_user_agent(self.metadata, self.process_keys, self.service)
        return (vouched or str(self.metadata.get(USER_AGENT, "")))[:USER_AGENT_LENGTH_MAX]


NOBODY: Final = Call()

_current: ContextVar[Call] = ContextVar("tollway_call", default=NOBODY)


def current_call() -> Call:
    """Return the call that is being handled; `NOBODY` outside of one."""
    return _current.get()


def set_call(call: Call) -> None:
    """Note the call that this task handles; for the server's interceptor and for tests."""
    _current.set(call)
