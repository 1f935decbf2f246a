"""Terminals, for callers that block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .._client import AsyncSandbox
from .._pty import PtyInfo
from .._pty_connection import PtyExit
from .._pty_viewer import AsyncPty
from .loop import Loop


class Pty:
    """A viewer of a terminal, as `AsyncPty`; iterate over it for the output. At the end of a `with` it detaches."""

    def __init__(self, loop: Loop, inner: AsyncPty) -> None:
        self._loop = loop
        self._inner = inner
        self.id = inner.id

    def __iter__(self) -> Iterator[bytes]:
        return self._loop.iterate(aiter(self._inner))

    @property
    def offset(self) -> int:
        return self._inner.offset

    @property
    def exit(self) -> PtyExit | None:
        return self._inner.exit

    def wait(self) -> PtyExit:
        return self._loop.run(self._inner.wait())

    def write(self, data: bytes | str) -> None:
        self._loop.run(self._inner.write(data))

    def resize(self, cols: int, rows: int) -> None:
        self._loop.run(self._inner.resize(cols, rows))

    def signal(self, signal: str) -> None:
        self._loop.run(self._inner.signal(signal))

    def kill(self) -> None:
        self._loop.run(self._inner.kill())

    def detach(self) -> None:
        self._loop.run(self._inner.detach())

    def __enter__(self) -> Pty:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()


class Ptys:
    """As `AsyncPtys`, whose methods have the full descriptions of every option."""

    def __init__(self, loop: Loop, sandbox: AsyncSandbox) -> None:
        self._loop = loop
        self._inner = sandbox.pty

    def create(self, **options: Any) -> Pty:
        return Pty(self._loop, self._loop.run(self._inner.create(**options)))

    def attach(self, id: str, **options: Any) -> Pty:
        return Pty(self._loop, self._loop.run(self._inner.attach(id, **options)))

    def list(self) -> list[PtyInfo]:
        return self._loop.run(self._inner.list())

    def get(self, id: str) -> PtyInfo:
        return self._loop.run(self._inner.get(id))

    def resize(self, id: str, cols: int, rows: int) -> None:
        self._loop.run(self._inner.resize(id, cols, rows))

    def signal(self, id: str, signal: str, *, session: bool = False) -> None:
        self._loop.run(self._inner.signal(id, signal, session=session))

    def kill(self, id: str) -> None:
        self._loop.run(self._inner.kill(id))

    def token(self, id: str, *, read_only: bool = False) -> str:
        return self._loop.run(self._inner.token(id, read_only=read_only))
