"""What one HTTP request carries from its first byte to its log line."""

from __future__ import annotations

from dataclasses import dataclass, field

import grpc

from graphql_gateway.callers.identity import Identity


@dataclass(slots=True, kw_only=True)
class RequestScope:
    """One HTTP request.

    Attributes:
        request_id: UUID; told to the client, the services and the log.
        address: The client's network address.
        authorization: The header as it came, or an empty string.
        identity: Who the credentials say it is.
        user_agent: What the client calls itself, in printable ASCII; may be empty.
        deadline_seconds: Monotonic seconds by which the answer must be there.
        operation: The GraphQL operation's own name, for the log.
        failures: RPCs that failed, for the log.
    """

    request_id: str
    address: str
    authorization: str
    identity: Identity
    deadline_seconds: float
    user_agent: str = ""
    operation: str = ""
    failures: list[dict[str, str]] = field(default_factory=list)

    def note_failure(self, rpc: str, code: grpc.StatusCode, detail: str | None) -> None:
        """Keep what a failed RPC said for the log; the client is told something else."""
        self.failures.append({"rpc": rpc, "code": code.name, "detail": detail or ""})
