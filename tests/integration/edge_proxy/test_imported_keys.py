"""Keys from another system through a real edge, and what strangers who make keys up cost auth: next to nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from contextlib import AsyncExitStack

from contract import key_format
from edge_proxy.pipeline.key_misses import MISSES_BURST
from tests.support.edge_fakes import PEPPER, grant

IMPORTED = "acme_live_7Qx"
KEYS = 10_000
AT_ONCE = 200


def imported_grant(**changes):
    digest = key_format.imported_digest(hashlib.sha256(IMPORTED.encode()).digest(), PEPPER)
    return grant("", digest=digest, key_prefix="acme_", **changes)


async def show(edge, keys):
    """Shows keys over one connection, many at once, and returns the statuses."""
    statuses = []
    async with edge.connection() as (reader, writer):
        for at in range(0, len(keys), AT_ONCE):
            for key in keys[at : at + AT_ONCE]:
                writer.write(f"GET /x HTTP/1.1\r\nHost: edge.test\r\nX-API-Key: {key}\r\n\r\n".encode())
            for _ in keys[at : at + AT_ONCE]:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                await reader.readexactly(int(length[1]))
                statuses.append(int(head[9:12]))
    return statuses


async def test_an_imported_key_works_and_serves_on_from_the_disk_while_auth_is_away(surroundings, tmp_path):
    edge = surroundings
    edge.backend.auth.add(imported_grant(plan_id="pro", restricted=True))
    edge.backend.auth.prefixes = ["acme_"]
    await edge.start()
    await edge.healthy()
    assert (await edge.request(key=IMPORTED)).status == 200
    assert b"\r\nX-Tollway-Plan-Id: pro\r\n" in edge.upstream.heads[-1]
    assert IMPORTED.encode() not in edge.upstream.heads[-1]
    assert (await edge.request(key=IMPORTED[:-1])).status == 401
    await edge.worker._key_uses.report()
    assert [use.api_key_id for use in edge.backend.auth.uses] == [imported_grant().api_key_id]
    await edge.stop()
    await edge.backend.stop()
    again = dataclasses.replace(edge, _stack=AsyncExitStack())
    again.changes["edge_decision_deadline_ms"] = 50
    await again.start()
    held = again.worker._cache.get(imported_grant().digest)
    assert (held.plan_id, held.restricted) == ("pro", True)
    assert (await again.request("/pass", key=IMPORTED)).status == 200
    assert (await again.request("/pass", key="acme_unknown")).status == 503, "not held, and nobody can be asked"
    assert (await again.request("/pass", key="other_unknown")).status == 401
    await again.stop(drain=False)


async def test_ten_thousand_malformed_keys_cost_auth_no_question(edge):
    keys = [f"sk_live_{number:064x}" for number in range(KEYS // 2)]
    keys += [f"sk_{number}" for number in range(KEYS // 4)] + [f"acme_{number}" for number in range(KEYS // 4)]
    assert set(await show(edge, keys)) == {401}
    assert edge.backend.auth.resolved == []


async def test_ten_thousand_wrong_keys_with_an_imported_beginning_cost_auth_a_bounded_number(surroundings):
    edge = surroundings
    edge.backend.auth.add(imported_grant())
    edge.backend.auth.prefixes = ["acme_"]
    await edge.start()
    await edge.healthy()
    same = await show(edge, ["acme_wrong"] * 1_000)
    assert set(same) == {401}
    assert sum(len(digests) for digests in edge.backend.auth.resolved) == 1, "the same one is remembered"
    statuses = await show(edge, [f"acme_{number}" for number in range(KEYS)])
    assert set(statuses) == {401, 429}
    asked = sum(len(digests) for digests in edge.backend.auth.resolved)
    # A burst and what refills meanwhile; a slow machine gives it time.
    assert MISSES_BURST <= asked < KEYS // 10
    assert (await edge.request(key=IMPORTED)).status == 200, "a key that is held is nobody's question"
    await edge.stop()
