from __future__ import annotations

import pytest

from edge_proxy.pipeline import problems
from edge_proxy.pipeline.problems import Refused
from edge_proxy.pipeline.route import Router
from edge_proxy.routing import file as routes_file
from tests.support.pipeline_fakes import request_head

TABLE = """
version: 1
upstreams: {one: {urls: ["http://127.0.0.1:1"]}}
routes:
  - {id: read, match: {path: /items, methods: [GET, HEAD]}, upstream: one}
  - {id: kept, match: {path: /kept}, upstream: one, path_parameters: keep}
"""


@pytest.fixture
def router():
    return Router(routes_file.parse(TABLE, {}))


def test_a_request_finds_its_route(router):
    assert router.find(request_head("/items")).id == "read"


def test_an_unknown_path_is_refused(router):
    with pytest.raises(Refused) as caught:
        router.find(request_head("/nothing"))
    assert caught.value.problem is problems.NO_ROUTE


def test_a_wrong_method_is_refused_with_those_that_are_taken(router):
    with pytest.raises(Refused) as caught:
        router.find(request_head("/items", method="PUT"))
    assert caught.value.problem is problems.METHOD_NOT_ALLOWED
    assert caught.value.headers == b"Allow: GET, HEAD\r\n"


def test_a_replaced_table_counts_for_the_next_request(router):
    router.table = routes_file.parse(TABLE.replace("id: read", "id: renamed"), {})
    assert router.find(request_head("/items")).id == "renamed"


def test_parameters_are_refused_unless_the_route_keeps_them(router):
    assert router.find(request_head("/kept;v=1")).id == "kept"
    for path in ("/items;v=1", "/items%3Bv=1"):
        with pytest.raises(Refused) as caught:
            router.find(request_head(path))
        assert caught.value.problem is problems.BAD_REQUEST


def test_a_path_in_another_case_is_refused_as_unknown(router):
    with pytest.raises(Refused) as caught:
        Router(routes_file.parse(TABLE + "  - {id: any, match: {path_prefix: /}, upstream: one}\n", {})).find(
            request_head("/Items")
        )
    assert caught.value.problem is problems.NO_ROUTE
