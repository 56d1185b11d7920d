from __future__ import annotations

import pytest

from cli.stack import secrets
from cli.stack.installation import Installation
from cli.stack.layout import Layout
from cli.stack.ports import DEFAULT_PORTS, Ports
from cli.stack.servers.roles import PostgresAccess


@pytest.fixture
def installation(tmp_path):
    layout = Layout(data_dir=tmp_path)
    layout.create()
    kept = secrets.load_or_create(layout.secrets, database_exists=False)
    return Installation(
        layout=layout,
        ports=Ports(by_part=DEFAULT_PORTS),
        secrets=kept,
        postgres=PostgresAccess(host="127.0.0.1", port=55432, passwords=kept.postgres_passwords),
        redis_url="redis://127.0.0.1:56379/0",
        kafka_bootstrap=None,
        workers=2,
    )
