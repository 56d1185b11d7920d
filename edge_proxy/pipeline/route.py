"""The first step: which route is this request for."""

from __future__ import annotations

from edge_proxy.http1.server.request import RequestHead
from edge_proxy.pipeline import problems
from edge_proxy.pipeline.problems import Refused
from edge_proxy.routing.routes import CaseDiffers, MethodNotAllowed, Route, RouteTable


class Router:
    """Finds routes in the table in force.

    Args:
        table: Routes; a reload replaces it as a whole.
    """

    def __init__(self, table: RouteTable) -> None:
        self.table = table

    def find(self, head: RequestHead) -> Route:
        """Return the route of a request.

        Raises:
            Refused: There is none, or the route does not take the method or the path's parameters.
        """
        found = self.table.match(head.host, head.method, head.plain_path)
        if isinstance(found, Route):
            if head.plain_path != head.path and not found.keeps_parameters:
                raise Refused(problems.BAD_REQUEST, "The route takes no `;` parameters in its path.")
            return found
        if isinstance(found, MethodNotAllowed):
            allow = f"Allow: {', '.join(found.allow)}\r\n".encode("ascii")
            raise Refused(problems.METHOD_NOT_ALLOWED, headers=allow)
        if isinstance(found, CaseDiffers):
            raise Refused(problems.NO_ROUTE, "The path differs from a route's only in letter case.")
        raise Refused(problems.NO_ROUTE)
