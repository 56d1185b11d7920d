from __future__ import annotations

import pytest

from edge_proxy.pipeline.key_misses import MISSES_BURST, MISSES_PER_SECOND, KeyMisses


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def emptied(misses, address):
    while misses.take(address):
        pass


def test_a_bucket_fills_again_with_time_and_never_above_its_size(clock):
    misses = KeyMisses(clock)
    emptied(misses, "192.0.2.1")
    clock.now += 1.0
    assert sum(misses.take("192.0.2.1") for _ in range(50)) == MISSES_PER_SECOND
    clock.now += 1e9
    assert sum(misses.take("192.0.2.1") for _ in range(1_000)) == MISSES_BURST


def test_one_ipv6_subscriber_is_one_address_and_a_mapped_one_is_its_ipv4_address(clock):
    misses = KeyMisses(clock)
    emptied(misses, "2001:db8:0:1::1")
    assert not misses.take("2001:db8:0:1:ffff::2")
    assert misses.take("2001:db8:0:2::1")
    emptied(misses, "192.0.2.1")
    assert not misses.take("::ffff:192.0.2.1")
    assert misses.take("unknown")


def test_the_table_is_bounded_and_forgets_whom_it_saw_longest_ago(clock):
    misses = KeyMisses(clock, addresses_max=3)
    emptied(misses, "1.0.0.1")
    for number in range(2, 4):
        misses.take(f"1.0.0.{number}")
    assert not misses.take("1.0.0.1")
    misses.take("1.0.0.4")
    assert len(misses) == 3
    assert not misses.take("1.0.0.1")


def test_what_is_given_back_leaves_no_trace(clock):
    misses = KeyMisses(clock)
    misses.take("1.0.0.1")
    misses.give_back("1.0.0.1")
    assert len(misses) == 0
