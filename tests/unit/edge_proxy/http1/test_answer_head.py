from __future__ import annotations

import pytest

from edge_proxy.http1.client.answer import AnswerHead, Framing, MalformedAnswer

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "value",
    [b"1000000000000000", b"+5", b"-5", b"5,5", b"5, 5", b"0x5", b"5 5", b"", b"\xb2", b"5\r\nContent-Length: 5"],
)
def test_a_length_is_one_number_of_at_most_fifteen_digits(value):
    with pytest.raises(MalformedAnswer):
        AnswerHead(OK + b"Content-Length: " + value + b"\r\n\r\n", is_head_request=False)


@pytest.mark.parametrize(
    ("status", "is_head_request", "framing"),
    [
        (200, False, Framing.COUNTED),
        (200, True, Framing.NONE),
        (204, False, Framing.NONE),
        (304, False, Framing.NONE),
        (103, False, Framing.NONE),
    ],
)
def test_the_request_and_the_status_decide_whether_there_is_a_body(status, is_head_request, framing):
    raw = b"HTTP/1.1 %d X\r\nContent-Length: 7\r\n\r\n" % status
    head = AnswerHead(raw, is_head_request=is_head_request)
    assert (head.framing, head.content_length) == (framing, 7)
    assert head.is_interim == (status == 103)
