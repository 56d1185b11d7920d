from __future__ import annotations

import pytest

from edge_proxy.pipeline.answers import forwarded_fields

DATE = b"Date: now\r\n"


@pytest.mark.parametrize(
    "name",
    [
        *(b"Connection", b"Keep-Alive", b"Proxy-Connection", b"Proxy-Authenticate", b"TE", b"Trailer"),
        *(b"Transfer-Encoding", b"Content-Length", b"Upgrade", b"X-Request-Id", b"RateLimit", b"RateLimit-Policy"),
        *(b"X-RateLimit-Limit", b"X-RateLimit-Remaining", b"X-RateLimit-Reset"),
    ],
)
def test_fields_that_end_at_this_hop_or_that_the_edge_says_itself_do_not_go_on(name):
    fields = [(name.upper(), b"x"), (b"ETag", b'"1"'), (name.lower(), b"y")]
    assert forwarded_fields(fields, date=DATE) == [b'ETag: "1"\r\n', DATE]


def test_fields_that_any_connection_field_names_do_not_go_on():
    fields = [(b"Connection", b"close, A"), (b"a", b"1"), (b"B", b"2"), (b"C", b"3"), (b"connection", b" b ,Date")]
    assert forwarded_fields([*fields, (b"Date", b"then")], date=DATE) == [b"C: 3\r\n", DATE]


def test_an_upstreams_own_date_stays():
    assert forwarded_fields([(b"DATE", b"then"), (b"Connection", b"keep-alive")], date=DATE) == [b"DATE: then\r\n"]
