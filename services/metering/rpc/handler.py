"""The service's handler: the RPCs of all resources under one roof, as gRPC wants it."""

from __future__ import annotations

from tollway.metering.v1 import metering_service_pb2_grpc as pb_grpc

from mesh.pagination import PageTokens
from services.metering.dead_letters import DeadLetters
from services.metering.rpc.dead_letters import DeadLetterRpcs
from services.metering.rpc.ingest import IngestRpcs
from services.metering.rpc.usage import UsageRpcs
from services.metering.service import IngestQueue, UsageService


class MeteringHandler(IngestRpcs, UsageRpcs, DeadLetterRpcs, pb_grpc.MeteringServiceServicer):
    """Handles MeteringService.

    Args:
        queue: Takes batches in.
        usage: Answers questions.
        dead_letters: What could not be taken in.
        page_tokens: Pages of lists.
    """

    def __init__(
        self, *, queue: IngestQueue, usage: UsageService, dead_letters: DeadLetters, page_tokens: PageTokens
    ) -> None:
        IngestRpcs.__init__(self, queue)
        UsageRpcs.__init__(self, usage)
        DeadLetterRpcs.__init__(self, dead_letters, page_tokens)
