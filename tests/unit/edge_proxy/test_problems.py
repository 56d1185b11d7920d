from __future__ import annotations

from typing import get_args

import pytest

from edge_proxy.http1.server.refusal import RefusalStatus, Unacceptable
from edge_proxy.pipeline.problems import refused_by_server


@pytest.mark.parametrize("status", get_args(RefusalStatus))
def test_whatever_the_server_refuses_has_a_problem_and_ends_the_connection(status):
    refused = refused_by_server(Unacceptable(status, "why"))
    assert (refused.problem.status, refused.detail, refused.close) == (status, "why", True)
