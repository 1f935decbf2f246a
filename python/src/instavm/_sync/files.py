"""Files of a sandbox, for callers that block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .._client import AsyncSandbox
from .._files import ChangeEvent, FileInfo
from .loop import Loop


class Files:
    """As `AsyncFiles`, whose methods have the full descriptions of every option."""

    def __init__(self, loop: Loop, sandbox: AsyncSandbox) -> None:
        self._loop = loop
        self._inner = sandbox.files

    def read(self, path: str, **options: Any) -> bytes:
        return self._loop.run(self._inner.read(path, **options))

    def read_stream(self, path: str, **options: Any) -> Iterator[bytes]:
        return self._loop.iterate(self._inner.read_stream(path, **options))

    def write(self, path: str, contents: bytes | str, **options: Any) -> FileInfo:
        return self._loop.run(self._inner.write(path, contents, **options))

    def stat(self, path: str, **options: Any) -> FileInfo:
        return self._loop.run(self._inner.stat(path, **options))

    def list(self, path: str, **options: Any) -> list[FileInfo]:
        return self._loop.run(self._inner.list(path, **options))

    def mkdir(self, path: str, **options: Any) -> FileInfo:
        return self._loop.run(self._inner.mkdir(path, **options))

    def remove(self, path: str, **options: Any) -> None:
        self._loop.run(self._inner.remove(path, **options))

    def rename(self, source: str, target: str, **options: Any) -> FileInfo:
        return self._loop.run(self._inner.rename(source, target, **options))

    def watch(self, path: str, **options: Any) -> Iterator[ChangeEvent]:
        return self._loop.iterate(self._inner.watch(path, **options))

    def pack_tar(self, path: str, **options: Any) -> Iterator[bytes]:
        return self._loop.iterate(self._inner.pack_tar(path, **options))

    def unpack_tar(self, path: str, archive: bytes, **options: Any) -> int:
        return self._loop.run(self._inner.unpack_tar(path, archive, **options))
