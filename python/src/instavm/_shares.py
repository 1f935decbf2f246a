"""Shares: ports of sandboxes as HTTPS addresses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ._http import AsyncHttp, instant, path_segment

#: The server lets no account have more open shares, and gives no longer page.
MOST_OPEN = 1000


@dataclass(frozen=True)
class Share:
    id: str
    #: The same as long as the share is open.
    url: str
    port: int
    #: Whether anyone who knows the address may use it; else it takes a link, or an API key of the account.
    is_public: bool
    #: Whether the program sees `localhost:<port>` as Host, and not the name that visitors use.
    rewrite_host: bool
    sandbox_id: str
    created_at: datetime


@dataclass(frozen=True)
class ShareLink:
    """Opens a share for whoever has it, until it expires, or it or the share is revoked."""

    id: str
    url: str
    expires_at: datetime


@dataclass(frozen=True)
class PreviewAuthority:
    #: It can speak for names under this one, and for nothing else.
    domain: str
    #: PEM
    certificate: str


class AsyncShares:
    """The account's shares. `AsyncSandbox.share` makes them."""

    def __init__(self, http: AsyncHttp) -> None:
        self._http = http

    async def list(
        self, sandbox_id: str | None = None, *, limit: int = MOST_OPEN, before: str | None = None
    ) -> list[Share]:
        """Open ones of sandboxes that have not ended, newest first; of one sandbox, or of all.

        `before` is the id of a share: those that come after it.
        """
        query = {"session_id": sandbox_id, "limit": limit, "before": before}
        answer = await self._http.json("GET", "/v1/shares", query=query)
        return [_share(share) for share in answer["shares"]]

    async def get(self, share_id: str) -> Share:
        return _share(await self._http.json("GET", _path(share_id)))

    async def update(self, share_id: str, *, is_public: bool | None = None, rewrite_host: bool | None = None) -> Share:
        """What is left out stays as it is. Made private, whoever came in while it was public is cut off."""
        return _share(await self._http.json("PATCH", _path(share_id), json=_settings(is_public, rewrite_host)))

    async def revoke(self, share_id: str) -> None:
        """At once, for good, with what is open; success when it is so already."""
        await self._http.json("DELETE", _path(share_id))

    async def authority(self) -> PreviewAuthority:
        """What clients of the addresses have to trust; `not_available` when the server has a certificate of its own."""
        answer = await self._http.json("GET", "/v2/previews/ca")
        return PreviewAuthority(answer["domain"], answer["certificate"])

    async def link(self, share_id: str, *, ttl_seconds: int | None = None) -> ShareLink:
        """A link to a private share for a browser; `ttl_seconds` is 1 to 604800, by default 3600."""
        body = {} if ttl_seconds is None else {"ttl_seconds": ttl_seconds}
        answer = await self._http.json("POST", f"{_path(share_id)}/token", json=body)
        return ShareLink(answer["link_id"], answer["url"], instant(answer["expires_at"]))

    async def revoke_link(self, share_id: str, link_id: str) -> None:
        """One link, the cookies that it became and whoever is in through it; success when it is so already."""
        await self._http.json("DELETE", f"{_path(share_id)}/links/{path_segment(link_id)}")


async def open_share(
    http: AsyncHttp, sandbox_id: str, port: int, is_public: bool | None, rewrite_host: bool | None
) -> Share:
    body = {"session_id": sandbox_id, "port": port, **_settings(is_public, rewrite_host)}
    return _share(await http.json("POST", "/v1/shares", json=body))


def _settings(is_public: bool | None, rewrite_host: bool | None) -> dict[str, Any]:
    settings = {"is_public": is_public, "rewrite_host": rewrite_host}
    return {name: value for name, value in settings.items() if value is not None}


def _path(share_id: str) -> str:
    return f"/v1/shares/{path_segment(share_id)}"


def _share(share: dict[str, Any]) -> Share:
    return Share(
        id=share["share_id"],
        url=share["url"],
        port=share["port"],
        is_public=share["is_public"],
        rewrite_host=share["rewrite_host"],
        sandbox_id=share["session_id"],
        created_at=instant(share["created_at"]),
    )
