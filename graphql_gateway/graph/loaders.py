"""The look-ups of one request, by area. They live as long as the request, so nobody sees what another looked up."""

from __future__ import annotations

from graphql_gateway.graph.accounts.loaders import AccountLoaders


class Loaders(AccountLoaders):
    """The look-ups of all areas; the other areas have none yet."""
