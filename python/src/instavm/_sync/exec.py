"""A command, for callers that block."""

from __future__ import annotations

from collections.abc import Iterator

from .._exec import AsyncExec, ExecResult, Output
from .loop import Loop


class Exec:
    """A running command; iterate over it for its output. At the end of a `with` block what still runs is killed."""

    def __init__(self, loop: Loop, inner: AsyncExec) -> None:
        self._loop = loop
        self._inner = inner

    def __iter__(self) -> Iterator[Output]:
        return self._loop.iterate(aiter(self._inner))

    @property
    def result(self) -> ExecResult | None:
        return self._inner.result

    def wait(self) -> ExecResult:
        return self._loop.run(self._inner.wait())

    def write_stdin(self, data: bytes | str) -> None:
        self._loop.run(self._inner.write_stdin(data))

    def close_stdin(self) -> None:
        self._loop.run(self._inner.close_stdin())

    def kill(self, signal: str = "SIGTERM") -> None:
        self._loop.run(self._inner.kill(signal))

    def close(self) -> None:
        """Drops the connection; a command still running is killed."""
        self._loop.run(self._inner.aclose())

    def __enter__(self) -> Exec:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
