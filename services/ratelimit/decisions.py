"""Decides batches: the hot path, from the messages of a stream to its verdicts.

This module reads and makes protobuf messages itself, between `rpc` and the rules: at tens of thousands of decisions a
second a copy into values of our own and back costs more than the decision. The import contracts say so aloud.

A batch is sorted by organization and mode, asked about in one round trip to Redis, and put back into its order. Any
number of batches may be on their way at once. Decisions of one organization and mode are made in the order in which
their batches came (`rounds.py`); batches about other organizations may pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from prometheus_client import Counter
from tollway.ratelimit.v1 import ratelimit_service_pb2 as pb

from contract.calendar_windows import TIME_US_MAX, calendar_instant
from contract.windows import MS_PER_SECOND
from mesh.clock import Clock
from services.ratelimit.counters import Answer, Call, Counters
from services.ratelimit.policies import Policies
from services.ratelimit.policy_layout import PolicyLayout
from services.ratelimit.rounds import SEED_WAIT_SECONDS, Rounds
from services.ratelimit.seeding import Seeder

_VERDICTS: Final = Counter("tollway_ratelimit_verdicts_total", "Decisions by verdict", ["kind"])
_COUNTS: Final = {
    kind: _VERDICTS.labels(pb.VerdictKind.Name(kind).removeprefix("VERDICT_KIND_").lower())
    for kind in pb.VerdictKind.values()
    if kind != pb.VERDICT_KIND_UNSPECIFIED
}
# What decide.lua calls 1 and 2.
_ALLOWED: Final = 1
_KINDS: Final = (pb.VERDICT_KIND_UNSPECIFIED, pb.VERDICT_KIND_ALLOWED, pb.VERDICT_KIND_DENIED)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """The verdicts of a batch in its order, the policies that they refer to, and whether all give-backs were taken."""

    verdicts: Sequence[pb.Verdict]
    layouts: Sequence[PolicyLayout]
    has_given_back: bool = True


class DecisionService:
    """Decides batches.

    Args:
        policies: The policies in force.
        counters: The counters.
        seeder: Rebuilds counters that are not known.
        clock: Chooses calendar windows.
        seed_wait_seconds: How long a call waits for its seed.
    """

    def __init__(
        self,
        *,
        policies: Policies,
        counters: Counters,
        seeder: Seeder,
        clock: Clock,
        seed_wait_seconds: float = SEED_WAIT_SECONDS,
    ) -> None:
        self._policies = policies
        self._clock = clock
        self._seeder = seeder
        self._rounds = Rounds(counters=counters, seeder=seeder, seed_wait_seconds=seed_wait_seconds)

    async def decide(self, decisions: Sequence[pb.Decision], give_backs: Iterable[pb.GiveBack]) -> Decided:
        """Decide a batch and give units back. Never fails: where Redis is away the verdicts say so."""
        calls: dict[tuple[bytes, bool], Call] = {}
        system_ms = int(self._clock.now().timestamp() * MS_PER_SECOND)
        no_policy: list[int] = []
        for place, decision in enumerate(decisions):
            call = self._call(calls, decision.organization_id, decision.test_mode, system_ms)
            if call is None:
                no_policy.append(place)
            else:
                call.decide(place, decision.api_key_id, decision.route_id, decision.cost_units or 1)
        for back in give_backs:
            # An instant that no verdict can have had is an error of the sender; it must not cost others their batch.
            if not 0 <= back.calendar_time_us <= TIME_US_MAX:
                continue
            call = self._call(calls, back.organization_id, back.test_mode, system_ms)
            if call is not None:
                call.give_back(
                    back.request_id, back.api_key_id, back.route_id, back.cost_units or 1, back.calendar_time_us
                )
        asked = list(calls.values())
        answers = await self._rounds.ask(asked) if asked else []
        verdicts: list[pb.Verdict] = [_NO_POLICY] * len(decisions)
        _COUNTS[pb.VERDICT_KIND_NO_POLICY].inc(len(no_policy))
        for call, answer in zip(asked, answers, strict=True):
            if answer.is_outdated:
                self._policies.reload(call.layout.policy.organization_id)
            else:
                self._seeder.ask_again(call)
            _write_verdicts(verdicts, call, answer)
        return Decided(
            verdicts=verdicts,
            layouts=[call.layout for call in asked],
            has_given_back=all(
                answer.records is not None for call, answer in zip(asked, answers, strict=True) if call.has_give_backs
            ),
        )

    def _call(
        self, calls: dict[tuple[bytes, bool], Call], organization_id: bytes, test_mode: bool, system_ms: int
    ) -> Call | None:
        key = (organization_id, test_mode)
        call = calls.get(key)
        if call is None:
            layout = self._policies.find(organization_id)
            if layout is None:
                return None
            instant = calendar_instant(self._clock.now(layout.policy.organization_id))
            call = calls[key] = Call(layout, test_mode=test_mode, instant=instant, system_ms=system_ms)
        return call


_NO_POLICY: Final = pb.Verdict(kind=pb.VERDICT_KIND_NO_POLICY)
_UNAVAILABLE: Final = pb.Verdict(kind=pb.VERDICT_KIND_UNAVAILABLE)


def _write_verdicts(verdicts: list[pb.Verdict], call: Call, answer: Answer) -> None:
    if answer.records is None:
        _COUNTS[pb.VERDICT_KIND_UNAVAILABLE].inc(len(call.places))
        for place in call.places:
            verdicts[place] = _UNAVAILABLE
        return
    version, time_us = call.layout.policy.version, call.instant.time_us
    reset_at = 3 + call.layout.window_count
    allowed_count = 0
    for place, record in zip(call.places, answer.records, strict=True):
        if record[0] == _ALLOWED:
            allowed_count += 1
            verdicts[place] = pb.Verdict(
                kind=pb.VERDICT_KIND_ALLOWED,
                policy_version=version,
                remaining=record[3:reset_at],
                reset_ms=record[reset_at:],
                calendar_time_us=time_us,
            )
        else:
            verdicts[place] = pb.Verdict(
                kind=pb.VERDICT_KIND_DENIED,
                policy_version=version,
                remaining=record[3:reset_at],
                reset_ms=record[reset_at:],
                denied_by=record[1],
                retry_after_ms=record[2],
                calendar_time_us=time_us,
            )
    _COUNTS[pb.VERDICT_KIND_ALLOWED].inc(allowed_count)
    _COUNTS[pb.VERDICT_KIND_DENIED].inc(len(call.places) - allowed_count)
