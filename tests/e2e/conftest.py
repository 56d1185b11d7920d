import aiohttp
import pytest

from tests.support.stack import running_stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with running_stack(tmp_path_factory.mktemp("stack") / "var", "--workers", "2") as stack:
        yield stack


@pytest.fixture
async def http():
    async with aiohttp.ClientSession() as session:
        yield session
