"""Terminals of a sandbox.

An `AsyncPty` is one viewer: it follows the terminal's output by offset, attaches again by itself when its connection
drops, and neither misses nor repeats a byte. Only the program's own end counts as an end.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from ._http import AsyncHttp, no_proxy, path_segment
from .errors import InstaVMError, error_from_body

_ACK_STEP_BYTES = 64 * 1024
#: Typed while the connection is down.
_MAX_TYPED_BYTES = 1024 * 1024
_REATTACH_WITHIN_SECONDS = 60.0
_FIRST_RETRY_SECONDS = 0.1
_LONGEST_RETRY_SECONDS = 5.0
_OPEN_TIMEOUT_SECONDS = 30
#: Larger than any frame of the server.
_MAX_FRAME_BYTES = 1024 * 1024
_CLOSE_UNAUTHENTICATED = 4401


@dataclass(frozen=True)
class PtyInfo:
    id: str
    alive: bool
    pid: int
    exit_code: int | None
    signal: str | None
    cols: int
    rows: int
    argv: list[str]
    user: str
    #: Of the oldest byte of output that is kept, and of the next one.
    start_offset: int
    end_offset: int
    viewers: int
    linger_seconds: float
    created_at: datetime


@dataclass(frozen=True)
class PtyExit:
    """`exit_code` is 128 + signal when a signal ended the program."""

    exit_code: int
    signal: str | None


class AsyncPtys:
    """The terminals of one sandbox."""

    def __init__(self, http: AsyncHttp, sandbox_id: str) -> None:
        self._http = http
        self._base = f"/v1/sessions/{path_segment(sandbox_id)}/pty"

    async def create(
        self,
        *,
        argv: Sequence[str] | None = None,
        command: str | None = None,
        shell: str | None = None,
        cols: int | None = None,
        rows: int | None = None,
        id: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        linger_seconds: int | None = None,
    ) -> AsyncPty:
        """Starts a program on a new terminal and attaches to it.

        `argv` is a program with its arguments, `command` a command line for bash, `shell` a shell to run as a login
        shell; without any of them it is bash. A terminal that nobody views for `linger_seconds` (by default 300, 0 is
        never) is ended.
        """
        fields = {
            "argv": None if argv is None else list(argv),
            "command": command,
            "shell": shell,
            "cols": cols,
            "rows": rows,
            "id": id,
            "cwd": cwd,
            "env": env,
            "user": user,
            "linger_seconds": linger_seconds,
        }
        body = {name: value for name, value in fields.items() if value is not None}
        created = await self._http.json("POST", f"{self._base}/sessions", json=body)
        try:
            return await self.attach(created["id"], offset=0)
        except BaseException:
            await self.kill(created["id"])
            raise

    async def attach(self, id: str, *, offset: int | None = None, read_only: bool = False) -> AsyncPty:
        """Begins at `offset` of the output, or at the oldest byte that is kept."""
        pty = AsyncPty(self._http, self, id, f"{self._base}/{path_segment(id)}/connect", read_only)
        await pty._connect(offset)
        return pty

    async def list(self) -> list[PtyInfo]:
        answer = await self._http.json("GET", f"{self._base}/sessions")
        return [_pty_info(one) for one in answer["sessions"]]

    async def get(self, id: str) -> PtyInfo:
        return _pty_info(await self._http.json("GET", self._one(id)))

    async def resize(self, id: str, cols: int, rows: int) -> None:
        await self._http.json("POST", f"{self._one(id)}/resize", json={"cols": cols, "rows": rows})

    async def signal(self, id: str, signal: str, *, session: bool = False) -> None:
        """To the foreground program, or to every process of the terminal's session."""
        await self._http.json("POST", f"{self._one(id)}/signal", json={"signal": signal, "session": session})

    async def kill(self, id: str) -> None:
        """Ends the program and forgets the terminal; success when there is none."""
        await self._http.json("DELETE", self._one(id))

    async def token(self, id: str, *, read_only: bool = False) -> str:
        """For a browser, which cannot send a key with a WebSocket: opens this terminal once, within a minute."""
        return (await self._http.json("POST", f"{self._one(id)}/token", json={"read_only": read_only}))["token"]

    def _one(self, id: str) -> str:
        return f"{self._base}/sessions/{path_segment(id)}"


class AsyncPty:
    """A viewer of a terminal. Iterate over it for the output; a program whose output nobody reads waits.

    Reading drives the connection: it acknowledges, and attaches again. As a context manager it detaches at the end of
    its block; the program goes on until the terminal has lingered without a viewer, or is killed.
    """

    def __init__(self, http: AsyncHttp, ptys: AsyncPtys, id: str, path: str, read_only: bool) -> None:
        self._http = http
        self._ptys = ptys
        self._path = path
        self._read_only = read_only
        self._socket: ClientConnection | None = None
        self._typed: list[bytes] = []
        self._acknowledged = 0
        self._detached = False
        self.id = id
        #: Of the next byte of output; where another viewer would go on.
        self.offset = 0
        #: Set when the output has been read to its end.
        self.exit: PtyExit | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.exit is None:
            frame = await self._frame()
            if isinstance(frame, bytes):
                self.offset += len(frame)
                yield frame
                await self._acknowledge()
            else:
                self._take(json.loads(frame))

    async def wait(self) -> PtyExit:
        """Reads what is left, drops it, and returns the end."""
        async for _ in self:
            pass
        assert self.exit is not None
        return self.exit

    async def write(self, data: bytes | str) -> None:
        """Types. While the connection is down the bytes wait for the next one; what was handed to a connection that
        then broke may or may not have arrived."""
        data = data.encode() if isinstance(data, str) else data
        if self.exit is not None or self._detached:
            raise InstaVMError("pty_ended", "the terminal has ended, or was detached")
        if self._socket is not None:
            try:
                await self._socket.send(data)
                return
            except ConnectionClosed:
                # It did not go out; the reader is about to notice the loss too.
                pass
        if sum(map(len, self._typed)) + len(data) > _MAX_TYPED_BYTES:
            raise InstaVMError("connection_lost", "the terminal is not connected, and too much waits to be typed")
        self._typed.append(data)

    async def resize(self, cols: int, rows: int) -> None:
        await self._ptys.resize(self.id, cols, rows)

    async def signal(self, signal: str) -> None:
        """To the foreground program."""
        await self._ptys.signal(self.id, signal)

    async def kill(self) -> None:
        """Ends the program; success when it has ended already."""
        await self._ptys.kill(self.id)

    async def detach(self) -> None:
        """Leaves. Idempotent."""
        self._detached = True
        if self._socket is not None:
            self._socket.transport.abort()

    async def __aenter__(self) -> AsyncPty:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.detach()

    async def _frame(self) -> bytes | str:
        while True:
            if self._detached:
                raise InstaVMError("pty_detached", "this viewer was detached from the terminal")
            if self._socket is None:
                await self._reattach()
                continue
            try:
                return await self._socket.recv()
            except ConnectionClosed:
                self._socket = None

    async def _reattach(self) -> None:
        until = time.monotonic() + _REATTACH_WITHIN_SECONDS
        pause = _FIRST_RETRY_SECONDS
        while not self._detached:
            try:
                return await self._connect(self.offset)
            except InstaVMError as error:
                final = error.status is not None and error.status < 500 and error.status != 429
                if final or time.monotonic() + pause > until:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_RETRY_SECONDS)

    async def _connect(self, offset: int | None) -> None:
        query = f"?ack=true&read_only={'true' if self._read_only else 'false'}"
        if offset is not None:
            query += f"&offset={offset}"
        try:
            socket = await connect(
                self._http.web_socket_url(self._path + query),
                additional_headers=self._http.headers,
                compression=None,
                max_size=_MAX_FRAME_BYTES,
                # The server's window bounds what waits; a pause here would hold up the answers to pings.
                max_queue=None,
                open_timeout=_OPEN_TIMEOUT_SECONDS,
                **no_proxy(),
            )
            self._take(json.loads(await socket.recv()))
        except InvalidStatus as error:
            body = bytes(error.response.body or b"").decode("utf-8", "replace")
            raise error_from_body(error.response.status_code, body) from error
        except ConnectionClosed as error:
            raise _refused(error) from error
        except (OSError, WebSocketException, ValueError) as error:
            raise InstaVMError("connection_failed", f"no terminal connection: {error}", retryable="unknown") from error
        self._socket = socket
        while self._typed:
            await socket.send(self._typed.pop(0))

    def _take(self, frame: dict[str, Any]) -> None:
        kind = frame.get("type")
        if kind in ("attached", "skipped"):
            self.offset = int(frame["offset"])
            self._acknowledged = self.offset
        elif kind == "exit":
            self.exit = PtyExit(exit_code=int(frame["exit_code"]), signal=frame.get("signal"))

    async def _acknowledge(self) -> None:
        if self._socket is None or self.offset - self._acknowledged < _ACK_STEP_BYTES:
            return
        self._acknowledged = self.offset
        try:
            await self._socket.send(json.dumps({"type": "ack", "offset": self.offset}))
        except ConnectionClosed:
            # Attaching again at this offset says the same.
            return


def _refused(error: ConnectionClosed) -> InstaVMError:
    """The server says why it closes before it has attached; the reason is one of its error codes."""
    if error.rcvd is not None and error.rcvd.code == _CLOSE_UNAUTHENTICATED:
        return InstaVMError("unauthenticated", "the API key is missing or not valid", status=401)
    reason = error.rcvd.reason if error.rcvd is not None else ""
    return InstaVMError(reason or "connection_failed", f"no terminal connection: {error}", retryable="unknown")


def _pty_info(pty: dict[str, Any]) -> PtyInfo:
    fields = {name: pty[name] for name in PtyInfo.__dataclass_fields__ if name != "created_at"}
    return PtyInfo(**fields, created_at=datetime.fromisoformat(pty["created_at"].replace("Z", "+00:00")))
