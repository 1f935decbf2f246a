"""A viewer of a terminal over as many connections as it takes.

It follows the output by offset, attaches again by itself when its connection drops, whether or not somebody reads at
that time, and neither misses nor repeats a byte. Only the program's own end counts as an end.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from ._pty_connection import PtyConnection, PtyExit, PtyNotice
from .errors import InstaVMError

if TYPE_CHECKING:
    from ._pty import AsyncPtys

_ACK_STEP_BYTES = 64 * 1024
#: Of one frame of input.
_INPUT_FRAME_BYTES = 64 * 1024
#: Typed while there is no connection.
_MAX_TYPED_BYTES = 1024 * 1024
_REATTACH_WITHIN_SECONDS = 60.0
_FIRST_RETRY_SECONDS = 0.1
_LONGEST_RETRY_SECONDS = 5.0

#: The time between attempts; tests have one of their own.
_now = time.monotonic
_sleep = asyncio.sleep

#: Attaches at an offset, or at the oldest byte that is kept.
Open = Callable[[int | None], Awaitable[PtyConnection]]


class AsyncPty:
    """A viewer of a terminal. Iterate over it for the output, in one task at a time; a program whose output nobody
    reads waits.

    As a context manager it detaches at the end of its block; the program goes on until the terminal has lingered
    without a viewer, or is killed.
    """

    def __init__(
        self,
        ptys: AsyncPtys,
        id: str,
        open_connection: Open,
        connection: PtyConnection,
        on_notice: Callable[[PtyNotice], None] | None,
    ) -> None:
        self.id = id
        #: Behind the output that was read; where another viewer would go on.
        self.offset = connection.offset
        #: Set when the output has been read to its end.
        self.exit: PtyExit | None = None
        self._ptys = ptys
        self._open = open_connection
        self._on_notice = on_notice
        #: The present one, or the one that was lost last.
        self._connection = connection
        self._created_at = connection.created_at
        self._received = connection.offset
        self._acknowledged = connection.offset
        #: Output with the offset behind it; None stands behind all of it.
        self._chunks: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self._is_read = False
        self._typed: deque[bytes] = deque()
        self._typing = asyncio.Lock()
        #: How it ended, or why there will be no more of it.
        self._outcome: PtyExit | BaseException | None = None
        self._keeper = asyncio.create_task(self._keep(), name=f"terminal {id}")
        self._keeper.add_done_callback(self._end)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._is_read:
            raise RuntimeError("another task reads this terminal; attach another viewer")
        self._is_read = True
        try:
            # Whoever asks for more has what came before.
            await self._acknowledge()
            chunk = await self._chunks.get()
        finally:
            self._is_read = False
        if chunk is not None:
            self.offset, data = chunk
            return data
        self._chunks.put_nowait(None)
        if isinstance(self._outcome, PtyExit):
            self.exit = self._outcome
            raise StopAsyncIteration
        assert self._outcome is not None
        raise self._outcome

    async def wait(self) -> PtyExit:
        """Reads what is left, drops it, and returns the end."""
        async for _ in self:
            pass
        assert self.exit is not None
        return self.exit

    async def write(self, data: bytes | str) -> None:
        """Types. While the connection is down the bytes wait for the next one; what was handed to a connection that
        then broke may or may not have arrived, and is never typed again."""
        data = data.encode() if isinstance(data, str) else data
        if isinstance(self._outcome, PtyExit):
            raise InstaVMError("pty_ended", "the program of the terminal has ended")
        if self._outcome is not None:
            raise self._outcome
        if not self._connection.is_open and sum(map(len, self._typed)) + len(data) > _MAX_TYPED_BYTES:
            raise InstaVMError("connection_lost", "the terminal is not connected, and too much waits to be typed")
        self._typed.extend(
            data[start : start + _INPUT_FRAME_BYTES] for start in range(0, len(data), _INPUT_FRAME_BYTES)
        )
        await self._type()

    async def resize(self, cols: int, rows: int) -> None:
        await self._ptys.resize(self.id, cols, rows)

    async def signal(self, signal: str) -> None:
        """To the foreground program."""
        await self._ptys.signal(self.id, signal)

    async def kill(self) -> None:
        """Ends the program; success when it has ended already."""
        await self._ptys.kill(self.id)

    async def detach(self) -> None:
        """Leaves; the program goes on. Idempotent."""
        self._keeper.cancel()
        await asyncio.wait({self._keeper})

    async def __aenter__(self) -> AsyncPty:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.detach()

    async def _keep(self) -> PtyExit:
        """Returns the end of the program. Raises InstaVMError when there is no coming back to it."""
        outage: _Outage | None = None
        while True:
            received, since = self._received, _now()
            end = await self._follow()
            if isinstance(end, PtyExit):
                return end
            if end.code == "pty_input_full":
                # Coming back would hide that what was typed was dropped.
                message = "more was typed than the program reads, and what did not fit was dropped"
                raise InstaVMError(end.code, message, hint="Attach again at the same offset.") from end
            self._tell(PtyNotice("disconnected"))
            # A connection that came to nothing belongs to the outage before it.
            if outage is None or self._received > received or _now() - since > _LONGEST_RETRY_SECONDS:
                outage = _Outage()
            await self._reattach(outage, end)
            self._tell(PtyNotice("reattached"))
            await self._type()

    async def _follow(self) -> PtyExit | InstaVMError:
        """Takes what comes until the program ends or the connection is lost."""
        while True:
            try:
                frame = await self._connection.frame()
            except InstaVMError as lost:
                return lost
            if isinstance(frame, PtyExit):
                return frame
            if isinstance(frame, bytes):
                self._received += len(frame)
                self._chunks.put_nowait((self._received, frame))
            else:
                self._go_on_at(frame.offset)
                self._tell(frame)

    async def _reattach(self, outage: _Outage, cause: InstaVMError) -> None:
        while True:
            await outage.wait(cause)
            try:
                connection = await self._open(self._received)
            except InstaVMError as error:
                if _is_final(error):
                    raise
                cause = error
                continue
            if connection.created_at != self._created_at:
                connection.close()
                raise InstaVMError("pty_not_found", "the terminal is gone; another has its name now", status=404)
            self._connection = connection
            if connection.offset != self._received:
                self._go_on_at(connection.offset)
                self._tell(PtyNotice("skipped", offset=connection.offset))
            return

    def _go_on_at(self, offset: int | None) -> None:
        if offset is not None:
            self._received = offset

    async def _type(self) -> None:
        """What waits goes out in order, each piece to one connection only."""
        async with self._typing:
            while self._typed and self._connection.is_open:
                await self._connection.send(self._typed.popleft())

    async def _acknowledge(self) -> None:
        if self.offset - self._acknowledged >= _ACK_STEP_BYTES:
            self._acknowledged = self.offset
            # When it does not arrive, attaching again says the same.
            await self._connection.send(json.dumps({"type": "ack", "offset": self.offset}))

    def _tell(self, notice: PtyNotice) -> None:
        if self._on_notice is not None:
            self._on_notice(notice)

    def _end(self, keeper: asyncio.Task[PtyExit]) -> None:
        self._connection.close()
        if keeper.cancelled():
            self._outcome = InstaVMError("pty_detached", "this viewer was detached from the terminal")
        else:
            self._outcome = keeper.exception() or keeper.result()
        self._chunks.put_nowait(None)


class _Outage:
    """Attempts to attach again become rarer, and end."""

    def __init__(self) -> None:
        self._until = _now() + _REATTACH_WITHIN_SECONDS
        self._pause = 0.0

    async def wait(self, cause: InstaVMError) -> None:
        """Until the next attempt. Raises `cause` when there will be none."""
        if _now() + self._pause > self._until:
            raise cause
        await _sleep(self._pause)
        self._pause = min(max(2 * self._pause, _FIRST_RETRY_SECONDS), _LONGEST_RETRY_SECONDS)


def _is_final(error: InstaVMError) -> bool:
    """Whether trying again would be answered the same. A limit may be the viewer's own connection that broke."""
    return error.status is not None and error.status < 500 and error.status != 429
