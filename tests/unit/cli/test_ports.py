"""Which port each part gets."""

from __future__ import annotations

from cli.stack import ports


def test_usual_ports_are_those_of_the_design():
    chosen = ports.choose({}, automatic=False)
    assert {part: chosen[part] for part in ("edge", "edge-admin", "gateway", "postgres", "redis", "upstream")} == {
        "edge": 8080,
        "edge-admin": 8081,
        "gateway": 8000,
        "postgres": 55432,
        "redis": 56379,
        "upstream": 9900,
    }
    assert [chosen[s] for s in ("auth", "ratelimit", "metering", "billing", "notification")] == list(
        range(50051, 50056)
    )


def test_a_given_port_wins_over_usual_and_automatic_ones():
    given = {"edge": 1234, "redis": None}
    assert ports.choose(given, automatic=False)["edge"] == 1234
    assert ports.choose(given, automatic=False)["redis"] == ports.DEFAULT_PORTS["redis"]


def test_addresses_are_on_loopback():
    chosen = ports.Ports(by_part={"edge": 1})
    assert (chosen.address("edge"), chosen.url("edge")) == ("127.0.0.1:1", "http://127.0.0.1:1")
