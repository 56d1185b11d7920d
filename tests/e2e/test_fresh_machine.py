"""A machine that has Python and nothing else: no redis-server on PATH, whatever the interpreter."""

from __future__ import annotations

import psutil
import pytest

from cli.stack.servers import redis_program
from tests.support.stack import PATIENT, running_stack

pytestmark = pytest.mark.timeout(600)


def test_the_stack_limits_a_request_with_the_redis_that_its_environment_keeps(stack_folder, tmp_path):
    with running_stack(stack_folder, "--workers", "1", environment={**PATIENT, "PATH": str(tmp_path)}) as stack:
        (pid,) = stack.file["pids"]["redis"]
        assert psutil.Process(pid).exe() == str(redis_program.kept_program().resolve())
        assert stack.ask_edge() == (200, "59")
        assert stack.stop() == 0
