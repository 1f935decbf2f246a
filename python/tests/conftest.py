from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import set_tracing_disabled
from agents.sandbox import Manifest
from agents.sandbox.entries import Dir, File

from instavm import AsyncInstaVM, AsyncSandbox
from instavm.integrations.openai_agents import InstaVMSandboxClient, InstaVMSandboxClientOptions

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests/support"))

from daemon import Daemon, running_daemon  # noqa: E402

set_tracing_disabled(True)


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    yield from running_daemon()


@pytest.fixture
async def client(daemon: Daemon) -> AsyncIterator[AsyncInstaVM]:
    async with AsyncInstaVM(daemon.api_key, daemon.base_url) as client:
        yield client


@pytest.fixture
async def sandbox(client: AsyncInstaVM) -> AsyncIterator[AsyncSandbox]:
    async with await client.sandboxes.create(ttl_seconds=3600) as sandbox:
        yield sandbox


@pytest.fixture
def provider(daemon: Daemon) -> InstaVMSandboxClient:
    return InstaVMSandboxClient(daemon.api_key, daemon.base_url)


@pytest.fixture
async def session(provider: InstaVMSandboxClient) -> AsyncIterator[Any]:
    """One of the provider's, with a manifest."""
    manifest = Manifest(
        entries={
            "a.txt": File(content=b"alpha"),
            "d": Dir(children={"b.txt": File(content=b"beta")}),
            "out": Dir(),
        },
        environment={"value": {"MODE": "manifest"}},
    )
    session = await provider.create(manifest=manifest, options=InstaVMSandboxClientOptions(env={"MODE": "option"}))
    async with session:
        yield session
    await provider.delete(session)
