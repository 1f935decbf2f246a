"""Terminals of a sandbox: made, listed, ended, and attached to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ._http import AsyncHttp, instant, path_segment
from ._pty_connection import PtyConnection, PtyNotice
from ._pty_viewer import AsyncPty
from ._unclaimed import made
from .errors import InstaVMError


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
        on_notice: Callable[[PtyNotice], None] | None = None,
    ) -> AsyncPty:
        """Starts a program on a new terminal and attaches to it.

        `argv` is a program with its arguments, `command` a command line for bash, `shell` a shell to run as a login
        shell; without any of them it is bash. The window has 80 columns and 24 rows when it is not said. A terminal
        that nobody views for `linger_seconds` (by default 300, 0 is never) is ended.
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

        async def make() -> AsyncPty:
            created = await self._http.json("POST", f"{self._base}/sessions", json=body)
            try:
                return await self.attach(created["id"], offset=0, on_notice=on_notice)
            except InstaVMError:
                with suppress(InstaVMError):
                    await self.kill(created["id"])
                raise

        async def end(pty: AsyncPty) -> None:
            await pty.detach()
            await pty.kill()

        return await made(make(), end)

    async def attach(
        self,
        id: str,
        *,
        offset: int | None = None,
        read_only: bool = False,
        on_notice: Callable[[PtyNotice], None] | None = None,
    ) -> AsyncPty:
        """Begins at `offset` of the output, or at the oldest byte that is kept.

        `on_notice` is called for what happens beside the output, as it happens and not as the output is read.
        """
        path = f"{self._base}/{path_segment(id)}/connect"

        async def open_connection(offset: int | None) -> PtyConnection:
            return await PtyConnection.open(self._http, path, offset=offset, read_only=read_only)

        return AsyncPty(self, id, open_connection, await open_connection(offset), on_notice)

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


def _pty_info(pty: dict[str, Any]) -> PtyInfo:
    fields = {name: pty[name] for name in PtyInfo.__dataclass_fields__ if name != "created_at"}
    return PtyInfo(**fields, created_at=instant(pty["created_at"]))
