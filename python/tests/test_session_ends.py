"""Sessions of the provider that are cancelled or ended while their sandbox is being replaced."""

from __future__ import annotations

import asyncio
import io

import pytest
from agents.sandbox.errors import WorkspaceArchiveWriteError
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec
from patience import until
from slow_server import Server

from instavm.integrations.openai_agents import InstaVMSandboxClient
from instavm.integrations.openai_agents.session import InstaVMSandboxSession
from instavm.integrations.openai_agents.snapshots import snapshot_reference


async def _session(server: Server) -> InstaVMSandboxSession:
    provider = InstaVMSandboxClient("key", await server.listen())
    server.gate.set()
    session = (await provider.create())._inner
    assert isinstance(session, InstaVMSandboxSession)
    server.requests.clear()
    return session


async def test_a_restore_that_is_cancelled_leaves_no_second_sandbox() -> None:
    server = Server()
    session = await _session(server)
    server.delay_deletion = asyncio.Event()
    restoring = asyncio.ensure_future(session.hydrate_workspace(io.BytesIO(snapshot_reference("snap"))))
    await until(lambda: server.requests[1:] == ["DELETE /v2/sandboxes/one-1"])
    restoring.cancel()
    await asyncio.sleep(0)
    server.delay_deletion.set()
    with pytest.raises(asyncio.CancelledError):
        await restoring
    assert server.requests[2:] == ["DELETE /v2/sandboxes/one-2"]
    await session.shutdown()


async def test_a_session_that_is_ended_while_it_is_restored_ends_the_restored_sandbox() -> None:
    server = Server()
    session = await _session(server)
    server.gate.clear()
    restoring = asyncio.ensure_future(session.hydrate_workspace(io.BytesIO(snapshot_reference("snap"))))
    await until(lambda: len(server.requests) == 1)
    ending = asyncio.ensure_future(session.shutdown())
    await asyncio.sleep(0.1)
    server.gate.set()
    await asyncio.gather(restoring, ending)
    assert server.requests[1:] == ["DELETE /v2/sandboxes/one-1", "DELETE /v2/sandboxes/one-2"]
    with pytest.raises(WorkspaceArchiveWriteError):
        await session.hydrate_workspace(io.BytesIO(snapshot_reference("snap")))


async def test_a_snapshot_that_cannot_be_made_out_is_refused_before_a_sandbox_is_made() -> None:
    class Broken(SnapshotSpec):
        def build(self, snapshot_id: str) -> SnapshotBase:
            raise ValueError(snapshot_id)

    server = Server()
    server.gate.set()
    provider = InstaVMSandboxClient("key", await server.listen())
    with pytest.raises(ValueError):
        await provider.create(snapshot=Broken(type="broken"))
    assert server.requests == []
