"""HTTP with the API key; bodies are streams in both directions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx

from .errors import InstaVMError, error_from_body

Query = Mapping[str, str | int | bool | Sequence[str] | None]

#: Creating a sandbox of a new size builds its template first; reading a stream waits for the guest.
_TIMEOUT = httpx.Timeout(connect=15, read=600, write=600, pool=60)
_MAX_ERROR_BYTES = 64 * 1024


def path_segment(text: str) -> str:
    """One segment of a path, whatever is in it; an id may come from outside and must not reach another route."""
    if text in ("", ".", ".."):
        raise InstaVMError("invalid_argument", f"{text!r} is not an id")
    return quote(text, safe="")


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


class AsyncHttp:
    def __init__(self, base_url: str, api_key: str) -> None:
        self.base_url = base_url.rstrip("/")
        self.headers = {"x-api-key": api_key}
        self._client = httpx.AsyncClient(
            base_url=self.base_url,
            headers=self.headers,
            timeout=_TIMEOUT,
            limits=httpx.Limits(max_connections=None),
        )

    async def json(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        json: Any = None,
        content: bytes | AsyncIterator[bytes] | None = None,
    ) -> Any:
        async with self.stream(method, path, query=query, json=json, content=content) as answer:
            text = await answer.aread()
        try:
            return httpx.Response(200, content=text).json()
        except ValueError as error:
            raise InstaVMError("unexpected_answer", f"the server's answer is not JSON: {text[:200]!r}") from error

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        json: Any = None,
        content: bytes | AsyncIterator[bytes] | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """The answer of a successful request. A body that breaks off raises, it never ends early."""
        headers = {"content-type": "application/octet-stream"} if content is not None else {}
        request = self._client.build_request(
            method, path, params=_parameters(query), json=json, content=content, headers=headers
        )
        if self._client.is_closed:
            raise InstaVMError("client_closed", "this client has been closed", hint="Make another one.")
        try:
            answer = await self._client.send(request, stream=True)
        except httpx.TransportError as error:
            message = f"no answer from {self.base_url}: {error or type(error).__name__}"
            hint = "Is the daemon running? Start it with: npm start" if isinstance(error, httpx.ConnectError) else None
            raise InstaVMError("connection_failed", message, retryable="unknown", hint=hint) from error
        try:
            if not answer.is_success:
                raise error_from_body(
                    answer.status_code, (await answer.aread())[:_MAX_ERROR_BYTES].decode("utf-8", "replace")
                )
            yield answer
        except httpx.TransportError as error:
            raise InstaVMError("connection_lost", f"the answer broke off: {error}", retryable="unknown") from error
        finally:
            await answer.aclose()

    def web_socket_url(self, path: str) -> str:
        scheme, rest = self.base_url.split("://", 1)
        return f"{'wss' if scheme == 'https' else 'ws'}://{rest}{path}"

    async def aclose(self) -> None:
        await self._client.aclose()


def _parameters(query: Query | None) -> list[tuple[str, str | int | float | bool | None]]:
    pairs: list[tuple[str, str | int | float | bool | None]] = []
    for name, value in (query or {}).items():
        if value is None:
            continue
        for one in [value] if isinstance(value, (str, int, bool)) else value:
            pairs.append((name, str(one).lower() if isinstance(one, bool) else str(one)))
    return pairs
