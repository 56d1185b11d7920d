from __future__ import annotations

import pytest

from edge_proxy.http1.client.pool import Sweep
from edge_proxy.pipeline import generation, problems
from edge_proxy.pipeline.problems import Refused
from edge_proxy.pipeline.route import Router
from edge_proxy.routing import file as routes_file
from tests.support.pipeline_fakes import exchange, request_head

TABLE = """
version: 1
upstreams:
  one: {urls: ["http://127.0.0.1:1"]}
  two: {urls: ["http://127.0.0.1:2", "http://127.0.0.1:3"]}
routes:
  - {id: read, match: {path: /items, methods: [GET, HEAD]}, upstream: one}
  - {id: kept, match: {path: /kept}, upstream: one, path_parameters: keep}
"""


@pytest.fixture
async def sweep():
    made = Sweep()
    yield made
    made.close()


@pytest.fixture
def router(sweep):
    return Router(generation.build(routes_file.parse(TABLE, {}), sweep))


async def test_a_request_finds_its_route_and_the_pool_of_its_upstream(router):
    asked = exchange(request_head("/items"))
    assert router.find(asked).id == "read"
    assert asked.pool is router.generation.pools["one"]


async def test_an_unknown_path_is_refused(router):
    with pytest.raises(Refused) as caught:
        router.find(exchange(request_head("/nothing")))
    assert caught.value.problem is problems.NO_ROUTE


async def test_a_wrong_method_is_refused_with_those_that_are_taken(router):
    with pytest.raises(Refused) as caught:
        router.find(exchange(request_head("/items", method="PUT")))
    assert caught.value.problem is problems.METHOD_NOT_ALLOWED
    assert caught.value.headers == b"Allow: GET, HEAD\r\n"


async def test_a_replaced_generation_counts_for_the_next_request_only(router, sweep):
    first, second = exchange(request_head("/items")), exchange(request_head("/items"))
    router.find(first)
    before = router.generation
    text = TABLE.replace("id: read", "id: renamed").replace("one", "uno")
    router.generation = generation.build(routes_file.parse(text, {}), sweep, before)
    assert router.find(second).id == "renamed"
    assert first.pool is before.pools["one"]
    assert second.pool is router.generation.pools["uno"]


async def test_an_upstream_that_stays_as_it_is_keeps_its_pool(router, sweep):
    text = TABLE.replace("http://127.0.0.1:1", "http://127.0.0.1:9")
    after = generation.build(routes_file.parse(text, {}), sweep, router.generation)
    assert after.pools["two"] is router.generation.pools["two"]
    assert after.pools["one"] is not router.generation.pools["one"]


async def test_origins_take_turns_and_one_that_was_away_is_asked_last(router, sweep):
    pool = router.generation.pools["two"]
    first, second = pool.pick(), pool.pick()
    assert {first.url, second.url} == {"http://127.0.0.1:2", "http://127.0.0.1:3"}
    assert pool.pick() is first
    pool.rest(first)
    assert [pool.pick() for _ in range(3)] == [second] * 3
    assert pool.others(second) == [first]
    pool.rest(second)
    assert {pool.pick(), pool.pick()} == {first, second}
    sweep.now += generation.REST_SECONDS + 0.1
    assert {pool.pick(), pool.pick()} == {first, second}


async def test_parameters_are_refused_unless_the_route_keeps_them(router):
    assert router.find(exchange(request_head("/kept;v=1"))).id == "kept"
    for path in ("/items;v=1", "/items%3Bv=1"):
        with pytest.raises(Refused) as caught:
            router.find(exchange(request_head(path)))
        assert caught.value.problem is problems.BAD_REQUEST


async def test_a_path_in_another_case_is_refused_as_unknown(sweep):
    text = TABLE + "  - {id: any, match: {path_prefix: /}, upstream: one}\n"
    router = Router(generation.build(routes_file.parse(text, {}), sweep))
    with pytest.raises(Refused) as caught:
        router.find(exchange(request_head("/Items")))
    assert caught.value.problem is problems.NO_ROUTE
