"""The first step: which route is this request for, and which connections belong to it."""

from __future__ import annotations

from edge_proxy.pipeline import problems
from edge_proxy.pipeline.exchange import Exchange
from edge_proxy.pipeline.generation import Generation
from edge_proxy.pipeline.problems import Refused
from edge_proxy.routing.routes import CaseDiffers, MethodNotAllowed, Route


class Router:
    """Finds routes in the generation in force.

    Args:
        generation: Routes and pools; a reload replaces them together.
    """

    def __init__(self, generation: Generation) -> None:
        self.generation = generation

    def find(self, exchange: Exchange) -> Route:
        """Set the exchange's route and pool, and return the route.

        Raises:
            Refused: There is none, or the route does not take the method or the path's parameters.
        """
        head, generation = exchange.head, self.generation
        found = generation.table.match(head.host, head.method, head.plain_path)
        if isinstance(found, Route):
            if head.plain_path != head.path and not found.keeps_parameters:
                raise Refused(problems.BAD_REQUEST, "The route takes no `;` parameters in its path.")
            exchange.route = found
            exchange.pool = generation.pools[found.upstream.name]
            return found
        if isinstance(found, MethodNotAllowed):
            allow = f"Allow: {', '.join(found.allow)}\r\n".encode("ascii")
            raise Refused(problems.METHOD_NOT_ALLOWED, headers=allow)
        if isinstance(found, CaseDiffers):
            raise Refused(problems.NO_ROUTE, "The path differs from a route's only in letter case.")
        raise Refused(problems.NO_ROUTE)
