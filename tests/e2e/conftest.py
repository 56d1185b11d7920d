import aiohttp
import pytest

from tests.support.folders import open_folder
from tests.support.stack import PATIENT, running_stack


@pytest.fixture(scope="module")
def stack():
    with (
        open_folder("tests-stack") as folder,
        running_stack(folder / "var", "--workers", "2", environment=PATIENT) as stack,
    ):
        yield stack


@pytest.fixture
async def http():
    async with aiohttp.ClientSession() as session:
        yield session
