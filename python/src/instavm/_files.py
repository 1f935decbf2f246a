"""Files and directories of a sandbox. Paths are absolute; contents are streams or whole."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ._http import AsyncHttp, Query, instant, path_segment


@dataclass(frozen=True)
class FileInfo:
    name: str
    #: "file", "dir", "symlink" or "other".
    kind: str
    size_bytes: int
    mode: int
    uid: int
    gid: int
    modified_at: datetime
    link_target: str | None
    #: The exact name in base64, when it is not valid UTF-8.
    name_base64: str | None


@dataclass(frozen=True)
class ChangeEvent:
    kind: str
    path: str


class AsyncFiles:
    """`user` acts with that user's rights; `within` names directories in which the path, links resolved, must lie."""

    def __init__(self, http: AsyncHttp, sandbox_id: str) -> None:
        self._http = http
        self._base = f"/v2/sandboxes/{path_segment(sandbox_id)}"

    async def read(
        self, path: str, *, max_bytes: int | None = None, user: str | None = None, within: Sequence[str] | None = None
    ) -> bytes:
        chunks = [chunk async for chunk in self.read_stream(path, length=max_bytes, user=user, within=within)]
        return b"".join(chunks)

    async def read_stream(
        self,
        path: str,
        *,
        offset: int | None = None,
        length: int | None = None,
        user: str | None = None,
        within: Sequence[str] | None = None,
    ) -> AsyncIterator[bytes]:
        query = {"path": path, "offset": offset, "length": length, "user": user, "within": within}
        async with self._http.stream("GET", f"{self._base}/files", query=query) as answer:
            async for chunk in answer.aiter_bytes():
                yield chunk

    async def write(
        self,
        path: str,
        contents: bytes | str | AsyncIterator[bytes],
        *,
        mode: int | None = None,
        parents: bool | None = None,
        append: bool | None = None,
        owner: str | None = None,
        group: str | None = None,
        modified_at: datetime | None = None,
        user: str | None = None,
        within: Sequence[str] | None = None,
    ) -> FileInfo:
        """The file appears complete or not at all (except with `append`). It counts as modified then, from 1970 on."""
        query: Query = {
            "path": path,
            "mode": _octal(mode),
            "parents": parents,
            "append": append,
            "owner": owner,
            "group": group,
            "modified_at": None if modified_at is None else modified_at.astimezone().isoformat(),
            "user": user,
            "within": within,
        }
        body = contents.encode() if isinstance(contents, str) else contents
        return _file_info(await self._http.json("PUT", f"{self._base}/files", query=query, content=body))

    async def stat(
        self, path: str, *, follow: bool = True, user: str | None = None, within: Sequence[str] | None = None
    ) -> FileInfo:
        query: Query = {"path": path, "follow": follow, "user": user, "within": within}
        return _file_info(await self._http.json("GET", f"{self._base}/files/stat", query=query))

    async def list(self, path: str, *, user: str | None = None, within: Sequence[str] | None = None) -> list[FileInfo]:
        """Entries in name order."""
        query = {"path": path, "user": user, "within": within}
        answer = await self._http.json("GET", f"{self._base}/files/list", query=query)
        return [_file_info(entry) for entry in answer["entries"]]

    async def mkdir(
        self,
        path: str,
        *,
        mode: int | None = None,
        parents: bool = False,
        owner: str | None = None,
        group: str | None = None,
        user: str | None = None,
        within: Sequence[str] | None = None,
    ) -> FileInfo:
        body = {"path": path, "parents": parents} | _given(
            mode=_octal(mode), owner=owner, group=group, user=user, within=within
        )
        return _file_info(await self._http.json("POST", f"{self._base}/files/mkdir", json=body))

    async def remove(
        self,
        path: str,
        *,
        recursive: bool = False,
        force: bool = False,
        user: str | None = None,
        within: Sequence[str] | None = None,
    ) -> None:
        body = {"path": path, "recursive": recursive, "force": force} | _given(user=user, within=within)
        await self._http.json("POST", f"{self._base}/files/remove", json=body)

    async def rename(
        self, source: str, target: str, *, user: str | None = None, within: Sequence[str] | None = None
    ) -> FileInfo:
        body = {"from": source, "to": target} | _given(user=user, within=within)
        return _file_info(await self._http.json("POST", f"{self._base}/files/rename", json=body))

    async def watch(self, path: str, *, recursive: bool = False, user: str | None = None) -> AsyncIterator[ChangeEvent]:
        """Changes below a directory, until the iteration is ended; the first event is `ready`."""
        query: Query = {"path": path, "recursive": recursive, "user": user}
        async with self._http.stream("GET", f"{self._base}/files/watch", query=query) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))
                    yield ChangeEvent(kind=event["kind"], path=event["path"])

    async def pack_tar(
        self, path: str, *, exclude: Sequence[str] | None = None, user: str | None = None
    ) -> AsyncIterator[bytes]:
        """A directory as an uncompressed tar, names relative to it."""
        query = {"path": path, "exclude": exclude, "user": user}
        async with self._http.stream("GET", f"{self._base}/tar", query=query) as answer:
            async for chunk in answer.aiter_bytes():
                yield chunk

    async def unpack_tar(
        self,
        path: str,
        archive: bytes | AsyncIterator[bytes],
        *,
        owner: str | None = None,
        group: str | None = None,
        max_bytes: int | None = None,
        max_entries: int | None = None,
        user: str | None = None,
        within: Sequence[str] | None = None,
    ) -> int:
        """Unpacks an uncompressed tar below a directory and returns how many entries it had."""
        query = {
            "path": path,
            "owner": owner,
            "group": group,
            "max_bytes": max_bytes,
            "max_entries": max_entries,
            "user": user,
            "within": within,
        }
        return int((await self._http.json("PUT", f"{self._base}/tar", query=query, content=archive))["entries"])


def _octal(mode: int | None) -> str | None:
    return None if mode is None else f"{mode & 0o7777:04o}"


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _file_info(info: dict[str, Any]) -> FileInfo:
    return FileInfo(
        name=info["name"],
        kind=info["kind"],
        size_bytes=info["size_bytes"],
        mode=int(info["mode"], 8),
        uid=info["uid"],
        gid=info["gid"],
        modified_at=instant(info["modified_at"]),
        link_target=info.get("link_target"),
        name_base64=info.get("name_base64"),
    )
