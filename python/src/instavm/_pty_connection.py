"""One WebSocket of a terminal's viewer, from its attachment to its loss (docs/reference/pty.md)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.protocol import State

from ._http import AsyncHttp
from .errors import InstaVMError, error_from_body

T = TypeVar("T")

_OPEN_TIMEOUT_SECONDS = 30
#: Longer than a slow line takes for the output that may be under way before an answer to a ping.
_PING_TIMEOUT_SECONDS = 45
#: Larger than any frame of the server.
_MAX_FRAME_BYTES = 1024 * 1024
_CLOSE_UNAUTHENTICATED = 4401


@dataclass(frozen=True)
class PtyExit:
    """`exit_code` is 128 + signal when a signal ended the program."""

    exit_code: int
    signal: str | None


@dataclass(frozen=True)
class PtyNotice:
    """What happens beside the output.

    `skipped`: the output goes on at `offset`, what lies before is not there for this viewer (one that is read-only and
    was too slow). `resized`: the window has `cols` and `rows` now. `disconnected` and `reattached` come without any.
    """

    kind: Literal["skipped", "resized", "disconnected", "reattached"]
    offset: int | None = None
    cols: int | None = None
    rows: int | None = None


class PtyConnection:
    """Attached. `offset` is where its output begins, `created_at` tells the terminal from another one of its name."""

    def __init__(self, socket: ClientConnection, offset: int, created_at: str) -> None:
        self._socket = socket
        self.offset = offset
        self.created_at = created_at

    @classmethod
    async def open(cls, http: AsyncHttp, path: str, *, offset: int | None, read_only: bool) -> PtyConnection:
        """Raises what the server answers instead, `connection_failed` or `unexpected_answer`."""
        query = f"?ack=true&read_only={'true' if read_only else 'false'}"
        if offset is not None:
            query += f"&offset={offset}"
        try:
            socket = await connect(
                http.web_socket_url(path + query),
                additional_headers=http.headers,
                compression=None,
                max_size=_MAX_FRAME_BYTES,
                # At most 256 KiB are sent ahead of the acknowledgements, which bounds what waits here; to pause the
                # socket would hold up the answers to pings.
                max_queue=None,
                open_timeout=_OPEN_TIMEOUT_SECONDS,
                ping_timeout=_PING_TIMEOUT_SECONDS,
                # The server is on the address that was given; a proxy for the web has no part in it.
                proxy=None,
            )
        except InvalidStatus as error:
            body = bytes(error.response.body or b"").decode("utf-8", "replace")
            raise error_from_body(error.response.status_code, body) from error
        except (OSError, asyncio.TimeoutError, WebSocketException) as error:
            raise _failed(error) from error
        try:
            first = await asyncio.wait_for(socket.recv(), _OPEN_TIMEOUT_SECONDS)
            return _understood(lambda: cls._attached(socket, json.loads(first)))
        except ConnectionClosed as error:
            raise _refused(error) from error
        except asyncio.TimeoutError as error:
            socket.transport.abort()
            raise _failed(error) from error
        except BaseException:
            socket.transport.abort()
            raise

    @classmethod
    def _attached(cls, socket: ClientConnection, frame: dict[str, Any]) -> PtyConnection:
        return cls(socket, int(frame["offset"]), str(frame["pty"]["created_at"]))

    @property
    def is_open(self) -> bool:
        return self._socket.protocol.state is State.OPEN

    async def frame(self) -> bytes | PtyExit | PtyNotice:
        """The next one. Raises `connection_lost`, or by the code that the server gives for closing."""
        while True:
            try:
                frame = await self._socket.recv()
            except ConnectionClosed as error:
                raise _lost(error) from error
            if isinstance(frame, bytes):
                return frame
            control = _understood(lambda text=frame: _control(json.loads(text)))
            if control is not None:
                return control

    async def send(self, frame: bytes | str) -> bool:
        """Whether it was handed over; what was handed to a connection that then broke may or may not have arrived."""
        try:
            await self._socket.send(frame)
        except ConnectionClosed:
            return False
        return True

    def close(self) -> None:
        self._socket.transport.abort()


def _control(frame: dict[str, Any]) -> PtyExit | PtyNotice | None:
    kind = frame["type"]
    if kind == "exit":
        return PtyExit(exit_code=int(frame["exit_code"]), signal=frame.get("signal"))
    if kind == "skipped":
        return PtyNotice("skipped", offset=int(frame["offset"]))
    if kind == "resized":
        return PtyNotice("resized", cols=int(frame["cols"]), rows=int(frame["rows"]))
    # A newer server may say what this client does not know.
    return None


def _understood(read: Callable[[], T]) -> T:
    try:
        return read()
    except (KeyError, TypeError, ValueError) as error:
        raise InstaVMError("unexpected_answer", f"a frame of the terminal makes no sense: {error!r}") from error


def _failed(error: BaseException) -> InstaVMError:
    message = f"no terminal connection: {error or type(error).__name__}"
    return InstaVMError("connection_failed", message, retryable="unknown")


def _refused(error: ConnectionClosed) -> InstaVMError:
    """Closed before it was attached; the reason is one of the server's error codes."""
    if error.rcvd is not None and error.rcvd.code == _CLOSE_UNAUTHENTICATED:
        return InstaVMError("unauthenticated", "the API key is missing or not valid", status=401)
    code = error.rcvd.reason if error.rcvd is not None else ""
    return InstaVMError(code or "connection_failed", f"no terminal connection: {error}", retryable="unknown")


def _lost(error: ConnectionClosed) -> InstaVMError:
    # Of the server's own closing, only 1011 gives an error code as its reason.
    code = error.rcvd.reason if error.rcvd is not None and error.rcvd.code == 1011 else ""
    message = f"the terminal's connection closed before the program ended: {error}"
    return InstaVMError(code or "connection_lost", message, retryable="unknown")
