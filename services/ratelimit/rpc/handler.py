"""RateLimitService: its RPCs, put together from one module per resource."""

from __future__ import annotations

from tollway.ratelimit.v1 import ratelimit_service_pb2_grpc as pb_grpc

from services.ratelimit.decisions import DecisionService
from services.ratelimit.leases import EdgeLeases
from services.ratelimit.rpc.decide import DecideRpcs
from services.ratelimit.rpc.policies import PolicyRpcs
from services.ratelimit.service import PolicyService


class RateLimitHandler(DecideRpcs, PolicyRpcs, pb_grpc.RateLimitServiceServicer):
    """Handles RateLimitService.

    Args:
        decisions: Decides.
        policies: Puts and gets policies.
        leases: Counts edges.
    """

    def __init__(self, *, decisions: DecisionService, policies: PolicyService, leases: EdgeLeases) -> None:
        DecideRpcs.__init__(self, decisions, leases)
        PolicyRpcs.__init__(self, policies)
