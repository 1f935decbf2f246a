"""API keys of the account."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from ._http import AsyncHttp, instant, path_segment

#: "read" looks, "run" makes, uses and ends sandboxes as well, "full" also manages keys and what else is the account's.
KeyScope = Literal["read", "run", "full"]


@dataclass(frozen=True)
class ApiKey:
    id: int
    name: str
    #: The name, when none was given.
    description: str
    #: The first characters of its secret.
    prefix: str
    scope: KeyScope
    #: Only sandboxes with these entries in their metadata are there for it; None: all are.
    sandbox_metadata: dict[str, Any] | None
    created_at: datetime
    expires_at: datetime | None
    #: To the minute.
    last_used_at: datetime | None


@dataclass(frozen=True)
class NewApiKey(ApiKey):
    """The one time that the secret is shown; it is not part of what `print` shows."""

    secret: str = field(repr=False)


class AsyncApiKeys:
    def __init__(self, http: AsyncHttp) -> None:
        self._http = http

    async def create(
        self,
        name: str | None = None,
        *,
        description: str | None = None,
        scope: KeyScope = "full",
        sandbox_metadata: Mapping[str, Any] | None = None,
        expires_at: datetime | None = None,
    ) -> NewApiKey:
        """`sandbox_metadata` goes with the scopes "read" and "run"; what such a key makes has these entries."""
        body: dict[str, Any] = {"scope": scope}
        if name is not None:
            body["name"] = name
        if description is not None:
            body["description"] = description
        if sandbox_metadata is not None:
            body["sandbox_metadata"] = dict(sandbox_metadata)
        if expires_at is not None:
            body["expires_at"] = expires_at.astimezone().isoformat()
        return _new_key(await self._http.json("POST", "/v1/api-keys/", json=body))

    async def list(self) -> list[ApiKey]:
        """Newest first, without those that were revoked."""
        return [_key(key) for key in await self._http.json("GET", "/v1/api-keys/")]

    async def get(self, key_id: int) -> ApiKey:
        return _key(await self._http.json("GET", _path(key_id)))

    async def update(self, key_id: int, *, name: str | None = None, description: str | None = None) -> ApiKey:
        """What is left out stays."""
        change = {"name": name, "description": description}
        body = {field: value for field, value in change.items() if value is not None}
        return _key(await self._http.json("PATCH", _path(key_id), json=body))

    async def expire(self, key_id: int, at: datetime | None) -> ApiKey:
        """Ends it then, with what is open by it; None: never."""
        body = {"expires_at": None if at is None else at.astimezone().isoformat()}
        return _key(await self._http.json("PATCH", _path(key_id), json=body))

    async def rotate(self, key_id: int, *, grace_seconds: int = 0) -> NewApiKey:
        """A new secret for the same key. The old one, and what is open by it, ends now or after a grace."""
        body = {"grace_seconds": grace_seconds}
        return _new_key(await self._http.json("POST", f"{_path(key_id)}/rotate", json=body))

    async def revoke(self, key_id: int) -> None:
        """At once and for good, with what is open by it."""
        await self._http.json("DELETE", _path(key_id))


def _path(key_id: int) -> str:
    return f"/v1/api-keys/{path_segment(str(key_id))}"


def _fields(key: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": key["id"],
        "name": key["name"],
        "description": key["description"],
        "prefix": key["prefix"],
        "scope": key["scope"],
        "sandbox_metadata": key["sandbox_metadata"],
        "created_at": instant(key["created_at"]),
        "expires_at": instant(key["expires_at"]) if key["expires_at"] else None,
        "last_used_at": instant(key["last_used_at"]) if key["last_used_at"] else None,
    }


def _key(key: dict[str, Any]) -> ApiKey:
    return ApiKey(**_fields(key))


def _new_key(key: dict[str, Any]) -> NewApiKey:
    return NewApiKey(**_fields(key), secret=key["api_key"])
