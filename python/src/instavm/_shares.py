"""Shares: ports of a sandbox as HTTPS addresses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._http import AsyncHttp


@dataclass(frozen=True)
class Share:
    id: str
    #: The same as long as the share is open.
    url: str
    port: int
    #: Whether anyone who knows the address may use it; else it takes a link, or an API key of the account.
    is_public: bool


async def open_share(http: AsyncHttp, sandbox_id: str, port: int, is_public: bool | None) -> Share:
    body: dict[str, Any] = {"session_id": sandbox_id, "port": port}
    if is_public is not None:
        body["is_public"] = is_public
    answer = await http.json("POST", "/v1/shares", json=body)
    return Share(answer["share_id"], answer["url"], answer["port"], answer["is_public"])
