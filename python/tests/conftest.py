from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from instavm import AsyncInstaVM, AsyncSandbox

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests/support"))

from daemon import Daemon, running_daemon  # noqa: E402


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    yield from running_daemon()


@pytest.fixture
async def client(daemon: Daemon) -> AsyncIterator[AsyncInstaVM]:
    async with AsyncInstaVM(daemon.api_key, daemon.base_url) as client:
        yield client


@pytest.fixture
async def sandbox(client: AsyncInstaVM) -> AsyncIterator[AsyncSandbox]:
    async with await client.sandboxes.create() as sandbox:
        yield sandbox
