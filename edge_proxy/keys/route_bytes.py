"""What every request of one key on one route has in common, as bytes.

It stands beside the grant that keeps it, because `pipeline.wire` makes it out of a grant: the two would import each
other otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_proxy.limiter.local_share import Asking
from edge_proxy.routing.routes import Route


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteBytes:
    """Constant parts for one key, one route and one method.

    `asking` is what `decision` says, for the local share. `internal_lines` tell the upstream who calls.
    """

    route: Route
    decision: bytes
    asking: Asking
    event: bytes
    internal_lines: bytes
