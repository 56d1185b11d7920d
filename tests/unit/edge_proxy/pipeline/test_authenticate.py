from __future__ import annotations

import asyncio
import hashlib

import pytest
from tollway.auth.v1 import auth_service_pb2 as auth

from contract import key_format
from edge_proxy.keys.resolve import AuthUnavailable
from edge_proxy.pipeline import problems
from edge_proxy.pipeline.authenticate import Authenticator
from edge_proxy.pipeline.key_misses import MISSES_BURST, KeyMisses
from edge_proxy.pipeline.problems import Refused
from edge_proxy.process.metrics import WorkerMetrics
from tests.support.edge_fakes import PEPPER, key
from tests.support.pipeline_fakes import START_US, FakeClient, FakeKeys, exchange, held_grant, request_head, route

SECRET = key()
DIGEST = key_format.digest(SECRET, PEPPER)


def authenticator(keys, misses=None):
    return Authenticator(
        peppers=[PEPPER],
        keys=keys,
        misses=KeyMisses(lambda: 0.0) if misses is None else misses,
        metrics=WorkerMetrics(),
        decision_deadline_ms=50,
    )


def holding(**changes):
    return authenticator(FakeKeys(cached={DIGEST: held_grant(SECRET, **changes)}))


async def refusal(step, asked, on=None):
    with pytest.raises(Refused) as caught:
        await step.authenticate(asked, on or route())
    return caught.value.problem


async def test_a_held_key_is_taken_without_asking_anybody():
    keys = FakeKeys(cached={DIGEST: held_grant(SECRET)})
    asked = exchange(request_head(secret=SECRET))
    await authenticator(keys).authenticate(asked, route())
    assert asked.grant is keys.cached[DIGEST]
    assert asked.wire is not None
    assert keys.asked == []


async def test_a_key_that_is_not_held_is_asked_for():
    keys = FakeKeys(known={DIGEST: held_grant(SECRET)})
    asked = exchange(request_head(fields=f"Authorization: bearer {SECRET}\r\n"))
    await authenticator(keys).authenticate(asked, route())
    assert asked.grant is keys.known[DIGEST]
    assert keys.asked == [DIGEST]


async def test_the_digest_is_kept_on_the_connection_for_the_same_credential_only():
    keys = FakeKeys(cached={DIGEST: held_grant(SECRET)})
    client = FakeClient()
    step = authenticator(keys)
    await step.authenticate(exchange(request_head(secret=SECRET), client), route())
    assert client.memo == (SECRET.encode(), (DIGEST,))
    assert await refusal(step, exchange(request_head(secret=key(2)), client)) is problems.KEY_INVALID


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("", problems.KEY_MISSING),
        ("Authorization: Basic eA==\r\n", problems.KEY_MISSING),
        ("X-API-Key: sk_live_guess\r\n", problems.KEY_INVALID),
        (f"X-API-Key: {SECRET}\r\nAuthorization: Bearer {SECRET}\r\n", problems.BAD_REQUEST),
        (f"X-API-Key: {SECRET}\r\nX-API-Key: {SECRET}\r\n", problems.BAD_REQUEST),
        (f"X-API-Key: {key(9)}\r\n", problems.KEY_INVALID),
    ],
)
async def test_what_is_not_exactly_one_valid_key_is_refused(fields, problem):
    assert await refusal(holding(), exchange(request_head(fields=fields))) is problem


async def test_while_auth_is_away_an_unknown_key_is_neither_valid_nor_invalid():
    keys = FakeKeys()
    keys.error = AuthUnavailable()
    assert await refusal(authenticator(keys), exchange(request_head(secret=SECRET))) is problems.KEYS_UNKNOWN


@pytest.mark.parametrize("changes", [{"state": auth.KEY_STATE_REVOKED}, {"expire_time_us": START_US}])
async def test_a_revoked_or_expired_key_is_invalid_and_leaves_no_grant(changes):
    asked = exchange(request_head(secret=SECRET))
    assert await refusal(holding(**changes), asked) is problems.KEY_INVALID
    assert asked.grant is None


@pytest.mark.parametrize(
    ("changes", "options", "problem"),
    [
        ({"state": auth.KEY_STATE_ORGANIZATION_SUSPENDED}, "", problems.ORGANIZATION_SUSPENDED),
        ({"allowed_ips": ["198.51.100.0/24"]}, "", problems.ADDRESS_NOT_ALLOWED),
        ({"scopes": ["a"]}, "scopes: [a, b]", problems.SCOPE_MISSING),
    ],
)
async def test_a_valid_key_that_may_not_do_this_is_refused_with_its_grant_set(changes, options, problem):
    asked = exchange(request_head(secret=SECRET))
    assert await refusal(holding(**changes), asked, route(options)) is problem
    assert asked.grant is not None
    assert asked.wire is not None


async def test_unknown_keys_of_one_address_are_asked_about_a_bounded_number_of_times():
    keys = FakeKeys()
    step = authenticator(keys)
    found = [await refusal(step, exchange(request_head(secret=key(n)))) for n in range(2, MISSES_BURST + 7)]
    assert found.count(problems.KEY_INVALID) == len(keys.asked) == MISSES_BURST
    assert found[-5:] == [problems.TOO_MANY_UNKNOWN_KEYS] * 5
    # Somebody else is not concerned, and neither is a key that is held.
    stranger = exchange(request_head(secret=key(999)), FakeClient(peer="192.0.2.9"))
    assert await refusal(step, stranger) is problems.KEY_INVALID
    keys.cached[DIGEST] = held_grant(SECRET)
    await step.authenticate(exchange(request_head(secret=SECRET)), route())


async def test_many_unknown_keys_at_once_do_not_slip_through():
    keys = FakeKeys()
    is_over = asyncio.Event()

    async def find(digest):
        keys.asked.append(digest)
        await is_over.wait()

    keys.find = find
    step = authenticator(keys)
    asking = [asyncio.create_task(refusal(step, exchange(request_head(secret=key(n))))) for n in range(2, 400)]
    await asyncio.sleep(0)
    is_over.set()
    found = await asyncio.gather(*asking)
    assert found.count(problems.KEY_INVALID) == len(keys.asked) == MISSES_BURST


async def test_known_keys_and_an_auth_that_is_away_use_nothing_up():
    keys = FakeKeys(known={DIGEST: held_grant(SECRET)})
    misses = KeyMisses(lambda: 0.0)
    step = authenticator(keys, misses)
    await step.authenticate(exchange(request_head(secret=SECRET)), route())
    keys.error = AuthUnavailable()
    assert await refusal(step, exchange(request_head(secret=key(2)))) is problems.KEYS_UNKNOWN
    assert len(misses) == 0


async def test_a_key_that_is_known_to_be_unknown_is_refused_without_a_question():
    keys = FakeKeys()
    keys.refused.add(DIGEST)
    misses = KeyMisses(lambda: 0.0)
    assert await refusal(authenticator(keys, misses), exchange(request_head(secret=SECRET))) is problems.KEY_INVALID
    assert keys.asked == []
    assert len(misses) == 0


IMPORTED = "acme_live_7Q"
IMPORTED_DIGEST = key_format.imported_digest(hashlib.sha256(IMPORTED.encode()).digest(), PEPPER)


async def test_an_imported_key_is_known_by_its_sha256():
    keys = FakeKeys(cached={IMPORTED_DIGEST: held_grant(SECRET)})
    keys.prefixes = (b"acme_",)
    for fields in (f"Authorization: Bearer  {IMPORTED}\r\n", f"X-API-Key: {IMPORTED}\r\n"):
        asked = exchange(request_head(fields=fields))
        await authenticator(keys).authenticate(asked, route())
        assert asked.grant is keys.cached[IMPORTED_DIGEST]
    assert keys.asked == []


async def test_what_is_neither_ours_nor_begins_as_imported_keys_do_is_refused_without_asking():
    keys = FakeKeys(known={IMPORTED_DIGEST: held_grant(SECRET), DIGEST: held_grant(SECRET)})
    keys.prefixes = (b"other",)
    step = authenticator(keys)
    shown = [IMPORTED, SECRET[:-1], SECRET + "0", SECRET.upper(), SECRET.replace("live", "test"), "", "sk_live_"]
    shown += [f"sk_live_{number:064x}" for number in range(10_000)]
    for text in shown:
        assert await refusal(step, exchange(request_head(fields=f"X-API-Key: {text}\r\n"))) is problems.KEY_INVALID
    assert keys.asked == []


async def test_a_key_of_ours_is_never_taken_for_an_imported_one():
    digest = key_format.imported_digest(hashlib.sha256(SECRET.encode()).digest(), PEPPER)
    keys = FakeKeys(cached={digest: held_grant(SECRET)}, known={digest: held_grant(SECRET)})
    keys.prefixes = (b"sk_",)
    assert await refusal(authenticator(keys), exchange(request_head(secret=SECRET))) is problems.KEY_INVALID
