"""The first step: which route is this request for."""

from __future__ import annotations

from edge_proxy.http1.server.request import RequestHead
from edge_proxy.pipeline import problems
from edge_proxy.pipeline.problems import Refused
from edge_proxy.routing.routes import MethodNotAllowed, Route, RouteTable


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
            Refused: There is none, or the route does not take the method.
        """
        found = self.table.match(head.host, head.method, head.path)
        if isinstance(found, Route):
            return found
        if isinstance(found, MethodNotAllowed):
            allow = f"Allow: {', '.join(found.allow)}\r\n".encode("ascii")
            raise Refused(problems.METHOD_NOT_ALLOWED, headers=allow)
        raise Refused(problems.NO_ROUTE)
