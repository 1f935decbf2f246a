"""Outbound access of a sandbox: its policy, what that says about a destination, and what the sandbox tried to reach."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ._http import AsyncHttp, Query, instant, path_segment

Verdict = Literal["allowed", "denied"]


@dataclass(frozen=True)
class EgressPolicy:
    """The five outbound switches of the contract."""

    #: Any host on port 80.
    allow_http: bool = True
    #: Any host on port 443.
    allow_https: bool = True
    #: The package registries that the server lists.
    allow_package_managers: bool = True
    #: Names; `*.example.com` means every name below it, and not itself.
    allowed_domains: Sequence[str] = ()
    allowed_cidrs: Sequence[str] = ()


@dataclass(frozen=True)
class EgressAddress:
    address: str
    allowed: bool
    rule: str


@dataclass(frozen=True)
class EgressTest:
    allowed: bool
    #: What decided: "allow_https", "allowed_domains:*.example.com", "default_deny", …
    rule: str
    #: A sentence, when it is not allowed.
    reason: str | None
    #: What the name stands for now, each with its own verdict.
    addresses: tuple[EgressAddress, ...]


@dataclass(frozen=True)
class EgressLogEntry:
    #: Grows; None only for a connection that is just beginning.
    id: int | None
    at: datetime
    #: "connect" or "lookup".
    kind: str
    #: The name or address asked for.
    host: str
    #: None for a look-up.
    port: int | None
    #: What was dialled.
    address: str | None
    allowed: bool
    rule: str
    #: "closed", "denied", "failed" or "cut"; "open" only while following, when a connection begins.
    outcome: str
    #: A sentence, when it was denied, failed or was cut.
    reason: str | None
    #: As the sandbox sees it.
    bytes_sent: int
    bytes_received: int
    duration_ms: float | None
    #: How many attempts, all alike, it stands for.
    repeated: int


@dataclass(frozen=True)
class EgressGap:
    """Entries that came and went faster than they were read."""

    missed: int


class AsyncEgress:
    def __init__(self, http: AsyncHttp, sandbox_id: str) -> None:
        self._http = http
        self._path = f"/v2/sandboxes/{path_segment(sandbox_id)}/egress"

    async def set_policy(self, policy: EgressPolicy) -> None:
        await self._http.json("PUT", self._path, json=wire_policy(policy))

    async def get_policy(self) -> EgressPolicy:
        policy = await self._http.json("GET", self._path)
        return EgressPolicy(
            allow_http=policy["allow_http"],
            allow_https=policy["allow_https"],
            allow_package_managers=policy["allow_public_repos"],
            allowed_domains=policy["allowed_domains"],
            allowed_cidrs=policy["allowed_cidrs"],
        )

    async def test(self, destination: str) -> EgressTest:
        told = await self._http.json("POST", f"{self._path}/test", json={"destination": destination})
        addresses = tuple(EgressAddress(one["address"], one["allowed"], one["rule"]) for one in told["addresses"])
        return EgressTest(told["allowed"], told["rule"], told["reason"], addresses)

    async def log(self, query: Query) -> list[EgressLogEntry]:
        return [_entry(one) for one in (await self._http.json("GET", f"{self._path}/log", query=query))["entries"]]

    async def follow(self, query: Query) -> AsyncIterator[EgressLogEntry | EgressGap]:
        async with self._http.stream("GET", f"{self._path}/log", query={**query, "follow": True}) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))
                    yield EgressGap(event["missed"]) if event["kind"] == "gap" else _entry(event)


def wire_policy(policy: EgressPolicy) -> dict[str, Any]:
    return {
        "allow_http": policy.allow_http,
        "allow_https": policy.allow_https,
        "allow_public_repos": policy.allow_package_managers,
        "allowed_domains": list(policy.allowed_domains),
        "allowed_cidrs": list(policy.allowed_cidrs),
    }


def _entry(entry: dict[str, Any]) -> EgressLogEntry:
    fields = {name: entry[name] for name in EgressLogEntry.__dataclass_fields__ if name != "at"}
    return EgressLogEntry(**fields, at=instant(entry["at"]))
