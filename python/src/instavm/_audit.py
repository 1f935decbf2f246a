"""The audit trail of the account: what was done, by whom, to what."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict

from ._http import AsyncHttp, Query, instant, path_segment

if TYPE_CHECKING:
    from typing_extensions import Unpack

_EVENTS = "/v1/audit/events"
#: As many as the server gives at once.
_MOST = 200


@dataclass(frozen=True)
class AuditActor:
    #: "api_key", "user", "visitor", "sandbox", "system" or "anonymous".
    type: str
    id: str | None
    #: For people: how a key begins, an e-mail address.
    name: str | None
    #: The account that it belongs to.
    user_id: str | None


@dataclass(frozen=True)
class AuditEvent:
    #: `evt_` and a number that grows by one with each event of the account.
    id: str
    at: datetime
    #: What stands before the dot of the type.
    group: str
    type: str
    #: "success", "failure", "error", "denied", "pending" or "started".
    status: str
    actor: AuditActor
    resource_type: str | None
    resource_id: str | None
    sandbox_id: str | None
    incarnation_id: str | None
    request_id: str | None
    #: Where the request came from.
    source_ip: str | None
    details: dict[str, Any]
    error: str | None


@dataclass(frozen=True)
class AuditPage:
    #: Newest first.
    events: list[AuditEvent]
    #: Of the next page; None when this is the last.
    next_cursor: str | None


class AuditFilters(TypedDict, total=False):
    """What `events`, `page` and `follow` tell of: events for which all of these hold."""

    #: What stands before the dot of the type.
    group: str | None
    type: str | None
    status: str | None
    user_id: str | None
    sandbox_id: str | None
    incarnation_id: str | None


_WIRE_NAMES = {
    "group": "event_group",
    "type": "event_type",
    "status": "status",
    "user_id": "user_id",
    "sandbox_id": "session_id",
    "incarnation_id": "vm_id",
}


class AsyncAudit:
    def __init__(self, http: AsyncHttp) -> None:
        self._http = http

    async def catalog(self) -> dict[str, list[str]]:
        """Every type of event, by group."""
        catalog: dict[str, list[str]] = (await self._http.json("GET", "/v1/audit/catalog"))["catalog"]
        return catalog

    async def events(self, **filters: Unpack[AuditFilters]) -> AsyncIterator[AuditEvent]:
        """All that are kept, newest first, in pages that are fetched as they are needed."""
        query = _query(filters)
        cursor: str | None = None
        while True:
            page = await self._page({**query, "cursor": cursor, "limit": _MOST})
            for event in page.events:
                yield event
            cursor = page.next_cursor
            if cursor is None:
                return

    async def page(self, *, cursor: str | None = None, limit: int = 50, **filters: Unpack[AuditFilters]) -> AuditPage:
        """`limit`: 1 to 200."""
        query = _query(filters)
        return await self._page({**query, "cursor": cursor, "limit": limit})

    async def get(self, event_id: str) -> AuditEvent:
        return _event(await self._http.json("GET", f"{_EVENTS}/{path_segment(event_id)}"))

    async def follow(self, *, after: str | None = None, **filters: Unpack[AuditFilters]) -> AsyncIterator[AuditEvent]:
        """Events as they come, oldest first, until the iteration is ended; from `after` on, or from now."""
        query = _query(filters)
        async with self._http.stream("GET", _EVENTS, query={**query, "follow": True, "after": after}) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    yield _event(json.loads(line.removeprefix("data: ")))

    async def _page(self, query: Query) -> AuditPage:
        answer = await self._http.json("GET", _EVENTS, query=query)
        return AuditPage([_event(one) for one in answer["items"]], answer["next_cursor"])


def _query(filters: AuditFilters) -> dict[str, str | None]:
    unknown = filters.keys() - _WIRE_NAMES.keys()
    if unknown:
        raise TypeError(f"there is no filter {', '.join(sorted(unknown))}; there are {', '.join(_WIRE_NAMES)}")
    return {name: filters.get(own) for own, name in _WIRE_NAMES.items()}


def _event(wire: dict[str, Any]) -> AuditEvent:
    return AuditEvent(
        id=wire["id"],
        at=instant(wire["created_at"]),
        group=wire["event_group"],
        type=wire["event_type"],
        status=wire["status"],
        actor=AuditActor(wire["actor_type"], wire["actor_id"], wire["actor_name"], wire["user_id"]),
        resource_type=wire["resource_type"],
        resource_id=wire["resource_id"],
        sandbox_id=wire["session_id"],
        incarnation_id=wire["vm_id"],
        request_id=wire["request_id"],
        source_ip=wire["source_ip"],
        details=wire["event_payload"],
        error=wire["error_message"],
    )
