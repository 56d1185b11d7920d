from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_proxy.usage.journal.format import (
    EVENT_BYTES_MAX,
    HEADER_BYTES,
    RECORD_OVERHEAD_BYTES,
    NotASegment,
    RecordTooLarge,
    SegmentHeader,
    decode_acknowledged,
    decode_header,
    encode_acknowledged,
    encode_header,
    encode_record,
    scan,
)

PAYLOADS = st.lists(st.binary(min_size=1, max_size=200), max_size=20)
HEADER = SegmentHeader(journal_id=UUID(int=7), number=3, base_position=12_345)


def whole(payloads):
    return b"".join(encode_record(payload) for payload in payloads)


@given(PAYLOADS)
def test_what_was_appended_is_read_back_in_order(payloads):
    data = whole(payloads)
    found = scan(data, count_max=1_000, is_last=True)
    assert (found.payloads, found.size, found.corrupt) == (payloads, len(data), [])


@given(PAYLOADS, st.data())
def test_crash_at_any_byte_leaves_exactly_the_records_that_were_complete(payloads, data):
    content = whole(payloads)
    cut = data.draw(st.integers(0, len(content)))
    complete, size = [], 0
    for payload in payloads:
        if size + RECORD_OVERHEAD_BYTES + len(payload) > cut:
            break
        size += RECORD_OVERHEAD_BYTES + len(payload)
        complete.append(payload)
    found = scan(content[:cut], count_max=1_000, is_last=True)
    assert (found.payloads, found.size, found.corrupt) == (complete, size, [])
    assert found.is_cut_off


@given(PAYLOADS.filter(bool), st.data())
def test_flipped_bit_is_detected_and_only_its_record_is_lost(payloads, data):
    content = bytearray(whole(payloads))
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    hit, start = 0, 0
    for index, payload in enumerate(payloads):
        if start <= position < start + RECORD_OVERHEAD_BYTES + len(payload):
            hit = index
        start += RECORD_OVERHEAD_BYTES + len(payload)
    found = scan(bytes(content), count_max=1_000, is_last=True)
    assert found.payloads == payloads[:hit] + payloads[hit + 1 :]
    if hit < len(payloads) - 1:
        assert sum(end - start for start, end in found.corrupt) == RECORD_OVERHEAD_BYTES + len(payloads[hit])


@settings(max_examples=30)
@given(PAYLOADS, st.integers(1, 64))
def test_reading_in_pieces_of_any_size_reads_the_same(payloads, extra):
    content = whole(payloads)
    piece = EVENT_BYTES_MAX + RECORD_OVERHEAD_BYTES + extra
    position, read = 0, []
    while position < len(content):
        data = content[position : position + piece]
        found = scan(data, count_max=3, is_last=position + len(data) == len(content))
        assert found.size
        read += found.payloads
        position += found.size
    assert read == payloads


def test_a_hole_of_zeros_is_not_a_record():
    found = scan(bytes(1_000), count_max=10, is_last=True)
    assert (found.payloads, found.size) == ([], 0)


@pytest.mark.parametrize("payload", [b"", b"x" * (EVENT_BYTES_MAX + 1)])
def test_record_has_bounds(payload):
    with pytest.raises(RecordTooLarge):
        encode_record(payload)


def test_header_round_trips_and_every_flipped_byte_is_refused():
    data = encode_header(HEADER)
    assert len(data) == HEADER_BYTES
    assert decode_header(data) == HEADER
    for index in range(len(data)):
        broken = bytearray(data)
        broken[index] ^= 0xFF
        with pytest.raises(NotASegment):
            decode_header(bytes(broken))
    with pytest.raises(NotASegment):
        decode_header(data[:-1])


def test_damaged_acknowledged_position_only_means_sending_again():
    data = encode_acknowledged(987)
    assert decode_acknowledged(data) == 987
    assert decode_acknowledged(data[:-1] + b"?") is None
    assert decode_acknowledged(b"") is None
