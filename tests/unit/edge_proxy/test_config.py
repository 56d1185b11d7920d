from __future__ import annotations

import pytest
from pydantic import ValidationError

from edge_proxy.config import EdgeSettings
from tests.support.processes import process_fields

NEEDED = {**process_fields("edge_proxy"), "key_peppers": f"1:{'11' * 32},3:{'33' * 32},2:{'22' * 32}"}


def test_newest_pepper_comes_first_and_secrets_do_not_show():
    settings = EdgeSettings(**NEEDED)
    assert settings.peppers() == [b"\x33" * 32, b"\x22" * 32, b"\x11" * 32]
    assert "33" * 32 not in repr(settings)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"key_peppers": "1:short"}, "key_peppers"),
        ({"environment": "production"}, "key_peppers"),
        ({"edge_listen": "8080"}, "edge_listen"),
        ({"edge_admin_listen": "host:99999"}, "edge_admin_listen"),
        ({"edge_workers": -1}, "edge_workers"),
        ({"edge_journal_bytes_max": 1 << 16}, "edge_journal_segment_bytes_max"),
        ({"edge_drain_seconds": 0}, "edge_drain_seconds"),
        ({"edge_trusted_proxies": "10.0.0.0/8,10.0.0.1/8"}, "edge_trusted_proxies"),
        ({"edge_trusted_proxies": "everybody"}, "edge_trusted_proxies"),
        ({"edge_proxy_protocol": True}, "edge_proxy_protocol"),
        ({"edge_forwarded_field": "x-real-ip"}, "edge_forwarded_field"),
        ({"edge_connections_max": 0}, "edge_connections_max"),
    ],
)
def test_wrong_variable_is_named(change, field):
    with pytest.raises(ValidationError) as caught:
        EdgeSettings(**(NEEDED | change))
    assert [error["loc"] for error in caught.value.errors()] == [(field,)]
