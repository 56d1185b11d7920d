"""The first step: which route is this request for, and which connections belong to it."""

from __future__ import annotations

from edge_proxy.pipeline import problems
from edge_proxy.pipeline.exchange import Exchange
from edge_proxy.pipeline.generation import Generation
from edge_proxy.pipeline.problems import Refused
from edge_proxy.routing.cors import origin_of, requested_method
from edge_proxy.routing.routes import CaseDiffers, MethodNotAllowed, Route


class Router:
    """Finds routes in the generation in force.

    Args:
        generation: Routes and pools; a reload replaces them together.
    """

    def __init__(self, generation: Generation) -> None:
        self.generation = generation

    def find(self, exchange: Exchange) -> Route:
        """Set the exchange's route, pool and CORS lines, and return the route.

        A preflight finds the route of the method that it asks about, where that route has CORS rules.

        Raises:
            Refused: There is none, or the route does not take the method or the path's parameters.
        """
        head = exchange.head
        if head.method == "OPTIONS":
            asked = requested_method(head.lines)
            found = self._match(exchange, asked) if asked is not None else None
            if isinstance(found, Route) and found.cors is not None:
                exchange.is_preflight = True
                return self._take(exchange, found)
        found = self._match(exchange, head.method)
        if isinstance(found, Route):
            if head.plain_path != head.path and not found.keeps_parameters:
                raise Refused(problems.BAD_REQUEST, "The route takes no `;` parameters in its path.")
            return self._take(exchange, found)
        if isinstance(found, MethodNotAllowed):
            allow = f"Allow: {', '.join(found.allow)}\r\n".encode("ascii")
            raise Refused(problems.METHOD_NOT_ALLOWED, headers=allow)
        if isinstance(found, CaseDiffers):
            raise Refused(problems.NO_ROUTE, "The path differs from a route's only in letter case.")
        raise Refused(problems.NO_ROUTE)

    def _match(self, exchange: Exchange, method: str) -> Route | MethodNotAllowed | CaseDiffers | None:
        head = exchange.head
        return self.generation.table.match(head.host, method, head.plain_path)

    def _take(self, exchange: Exchange, route: Route) -> Route:
        exchange.route = route
        exchange.pool = self.generation.pools[route.upstream.name]
        if route.cors is not None:
            origin = origin_of(exchange.head.lines)
            exchange.cors_lines = route.cors.lines(origin, is_preflight=exchange.is_preflight)
        return route
