"""Commands of the client, against a server whose frames come as they rarely do."""

from __future__ import annotations

import json

import pytest
from websockets.asyncio.server import ServerConnection, serve

from instavm import AsyncExec, AsyncInstaVM

_EXIT = {"type": "exit", "exit_code": 0, "signal": None, "timed_out": False, "wall_time_ms": 1, "cpu_time_ms": 1}


async def test_a_command_that_ends_before_it_was_given_its_input_has_not_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def command(socket: ServerConnection) -> None:
        await socket.recv()
        for frame in ({"type": "started", "pid": 1}, _EXIT):
            await socket.send(json.dumps(frame))

    write = AsyncExec.write_stdin

    async def write_late(exec_: AsyncExec, data: bytes | str) -> None:
        await exec_._socket.wait_closed()
        await write(exec_, data)

    monkeypatch.setattr(AsyncExec, "write_stdin", write_late)
    async with serve(command, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with AsyncInstaVM("key", f"http://127.0.0.1:{port}") as client:
            result = await client.sandboxes.attach("any").run("true", input="not read")
    assert result.exit_code == 0
