"""One daemon and one sandbox for all terminals; screens are those of a terminal emulator."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pyte
import pytest

from instavm import AsyncInstaVM, AsyncPty, AsyncSandbox

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from daemon import Daemon, running_daemon  # noqa: E402
from patience import PATIENCE_SECONDS, until  # noqa: E402


class Screen(pyte.Screen):
    def select_graphic_rendition(self, *attributes: int, private: bool = False) -> None:
        """pyte's parser passes on xterm's private sequences of this name (modifyOtherKeys), which set no colours."""
        if not private:
            super().select_graphic_rendition(*attributes)


class Terminal:
    """What a person would see: the output of a PTY, drawn by an emulator."""

    def __init__(self, pty: AsyncPty, cols: int, rows: int) -> None:
        self.pty = pty
        self.raw = b""
        self.screen = Screen(cols, rows)
        self._stream = pyte.ByteStream(self.screen)
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for chunk in self.pty:
            self.raw += chunk
            self._stream.feed(chunk)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)

    async def type(self, text: str) -> None:
        await self.pty.write(text)

    async def shows(self, text: str) -> None:
        await self.until(lambda: text in self.text, text)

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        def has_come() -> bool:
            if holds():
                return True
            if self._reader.done():
                # Nothing more will; if it was lost, this says so.
                self._reader.result()
                raise AssertionError(f"the program ended before {what!r}; the screen is:\n{self.text}")
            return False

        await until(has_come, lambda: f"{what!r} did not come; the screen is:\n{self.text}")

    async def ends(self) -> int:
        await asyncio.wait_for(self._reader, PATIENCE_SECONDS)
        assert self.pty.exit is not None
        return self.pty.exit.exit_code

    async def close(self) -> None:
        await self.pty.kill()
        await self.pty.detach()
        await asyncio.gather(self._reader, return_exceptions=True)


Open = Callable[..., Awaitable[Terminal]]


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    yield from running_daemon()


@pytest.fixture(scope="session")
async def sandbox(daemon: Daemon) -> AsyncIterator[AsyncSandbox]:
    async with (
        AsyncInstaVM(daemon.api_key, daemon.base_url) as client,
        await client.sandboxes.create(ttl_seconds=3600) as sandbox,
    ):
        yield sandbox


@pytest.fixture
async def opened(sandbox: AsyncSandbox) -> AsyncIterator[Open]:
    terminals: list[Terminal] = []

    async def open_terminal(*argv: str, cols: int = 80, rows: int = 24) -> Terminal:
        command = argv or ("bash", "--norc", "-i")
        env = {"PS1": "$ ", "HOME": "/root"}
        pty = await sandbox.pty.create(argv=command, cols=cols, rows=rows, env=env, cwd="/root")
        terminals.append(Terminal(pty, cols, rows))
        return terminals[-1]

    yield open_terminal
    for terminal in terminals:
        await terminal.close()
