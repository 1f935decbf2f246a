"""One command over one WebSocket, streamed in both directions."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from ._http import AsyncHttp, path_segment
from .errors import InstaVMError, error_from_body

#: A program with its arguments, or a bash script of any length.
Command = str | Sequence[str]

_STDOUT_FRAME = 1
_MAX_FRAME_BYTES = 16 * 1024 * 1024
#: Frames read ahead of their consumer; beyond these the command waits.
_MAX_QUEUE = 16
_OPEN_TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class ExecResult:
    """`exit_code` is 128 + signal when a signal ended the command, 124 when it ran out of time."""

    exit_code: int
    signal: str | None
    timed_out: bool
    wall_time_ms: float
    cpu_time_ms: float


@dataclass(frozen=True)
class Output:
    stream: Literal["stdout", "stderr"]
    data: bytes


class AsyncExec:
    """A running command. Iterate over it for its output; a command that nobody reads waits.

    As a context manager it does not outlive its block: what still runs then is killed.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        #: Set when the output has been read to its end.
        self.result: ExecResult | None = None

    @classmethod
    async def start(
        cls,
        http: AsyncHttp,
        sandbox_id: str,
        command: Command,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        timeout_ms: int | None = None,
        stdin: bool = False,
    ) -> AsyncExec:
        url = http.web_socket_url(f"/v2/sandboxes/{path_segment(sandbox_id)}/exec")
        try:
            socket = await connect(
                url,
                additional_headers=http.headers,
                compression=None,
                max_size=_MAX_FRAME_BYTES,
                max_queue=_MAX_QUEUE,
                open_timeout=_OPEN_TIMEOUT_SECONDS,
                # The answers to pings queue behind output: whoever pauses reading would be taken for lost.
                ping_timeout=None,
                # The server is on the address that was given; a proxy for the web has no part in it.
                proxy=None,
            )
        except InvalidStatus as error:
            body = bytes(error.response.body or b"").decode("utf-8", "replace")
            raise error_from_body(error.response.status_code, body) from error
        except (OSError, WebSocketException) as error:
            raise InstaVMError("connection_failed", f"no exec connection: {error}", retryable="unknown") from error
        exec_ = cls(socket)
        start: dict[str, Any] = {"type": "start", "stdin": stdin, "timeout_ms": timeout_ms or 0}
        start |= {"script": command} if isinstance(command, str) else {"argv": list(command)}
        start |= {name: value for name, value in (("cwd", cwd), ("env", env), ("user", user)) if value is not None}
        try:
            await socket.send(json.dumps(start))
            await exec_._frame()  # started, or the reason why not
        except BaseException:
            await exec_.aclose()
            raise
        return exec_

    async def __aiter__(self) -> AsyncIterator[Output]:
        while self.result is None:
            frame = await self._frame()
            if isinstance(frame, Output):
                yield frame

    async def wait(self) -> ExecResult:
        """Reads what is left, drops it, and returns the end."""
        async for _ in self:
            pass
        assert self.result is not None
        return self.result

    async def write_stdin(self, data: bytes | str) -> None:
        await self._send(data.encode() if isinstance(data, str) else data)

    async def close_stdin(self) -> None:
        await self._send(json.dumps({"type": "stdin_end"}))

    async def kill(self, signal: str = "SIGTERM") -> None:
        """Signals the process group."""
        await self._send(json.dumps({"type": "signal", "signal": signal}))

    async def aclose(self) -> None:
        """Drops the connection; a command still running is killed."""
        self._socket.transport.abort()

    async def __aenter__(self) -> AsyncExec:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _send(self, frame: bytes | str) -> None:
        try:
            await self._socket.send(frame)
        except ConnectionClosed as error:
            raise _lost(error) from error

    async def _frame(self) -> Output | None:
        try:
            frame = await self._socket.recv()
        except ConnectionClosed as error:
            raise _lost(error) from error
        if isinstance(frame, bytes):
            return Output("stdout" if frame[0] == _STDOUT_FRAME else "stderr", frame[1:])
        message = json.loads(frame)
        if message.get("type") == "error":
            raise error_from_body(None, frame)
        if message.get("type") == "exit":
            self.result = ExecResult(
                exit_code=int(message["exit_code"]),
                signal=message.get("signal"),
                timed_out=bool(message.get("timed_out")),
                wall_time_ms=float(message.get("wall_time_ms", 0)),
                cpu_time_ms=float(message.get("cpu_time_ms", 0)),
            )
            await self._socket.close()
        return None


def _lost(error: ConnectionClosed) -> InstaVMError:
    return InstaVMError(
        "connection_lost", f"the exec connection closed before the command ended: {error}", retryable="unknown"
    )
