"""A server of sandboxes that answers when it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any


class Server:
    """Makes things in its own time."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        #: Whoever asks for something to be made waits for it.
        self.gate = asyncio.Event()
        self.on_making: Callable[[], None] = lambda: None
        self.refuses_deletion = False
        #: Those that are deleted wait for it.
        self.delay_deletion: asyncio.Event | None = None
        self._made = 0

    async def listen(self) -> str:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = [line.split(": ")[1] for line in head.lower().split("\r\n") if "content-length" in line]
                await reader.readexactly(int(length[0]) if length else 0)
                status, answer = await self._answer(" ".join(head.split(" ", 2)[:2]))
                body = json.dumps(answer).encode()
                writer.write(f"HTTP/1.1 {status} OK\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    async def _answer(self, request: str) -> tuple[int, Any]:
        self.requests.append(request)
        if request.startswith("DELETE"):
            if self.delay_deletion is not None:
                await self.delay_deletion.wait()
            return (500, {"code": "internal"}) if self.refuses_deletion else (200, {})
        self.on_making()
        await self.gate.wait()
        if request.endswith("/fork"):
            return 200, {"sandboxes": [{"id": "one-1"}, {"id": "one-2"}]}
        self._made += 1
        return 200, {"id": f"one-{self._made}"}
