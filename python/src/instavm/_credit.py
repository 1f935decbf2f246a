"""Credit of the account, and what it was used for. Amounts are dollars."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ._http import AsyncHttp, instant

CreditPeriod = Literal["current_month", "last_30_days", "all"]


@dataclass(frozen=True)
class CreditBalance:
    #: What was used in the period and what remains.
    allocated: float
    used: float
    remaining: float
    #: What was used beyond what was given; 0 as a rule.
    overage: float
    #: Whether an account without credit runs nothing.
    is_enforced: bool


@dataclass(frozen=True)
class Usage:
    cost_dollars: float
    vcpu_hours: float
    memory_gib_hours: float
    storage_gib_hours: float
    egress_gib: float


@dataclass(frozen=True)
class UsageByDay:
    totals: Usage
    #: Every day (UTC, "2026-01-31"), oldest first.
    days: dict[str, Usage]


@dataclass(frozen=True)
class Charge:
    begin: datetime
    end: datetime
    kind: str
    dollars: float
    #: The sandbox; None for what is stored.
    resource_id: str | None


@dataclass(frozen=True)
class Rates:
    per_vcpu_hour: float
    per_memory_gib_hour: float
    per_storage_gib_hour: float
    per_egress_gib: float


class AsyncCredit:
    def __init__(self, http: AsyncHttp) -> None:
        self._http = http

    async def balance(self, period: CreditPeriod = "current_month") -> CreditBalance:
        """Now, what runs included."""
        answer = await self._http.json("GET", "/v1/credits/summary", query={"period": period})
        dollars = answer["dollars"]
        return CreditBalance(
            allocated=dollars["allocated"],
            used=dollars["used"],
            remaining=dollars["remaining"],
            overage=dollars.get("overage", 0.0),
            is_enforced=answer["enforced"],
        )

    async def usage(self, days: int = 30) -> UsageByDay:
        """Of 1 to 366 days, today the last."""
        answer = await self._http.json("GET", "/v1/users/me/usage-breakdown", query={"days": days})
        return UsageByDay(_usage(answer["totals"]), {day["date"]: _usage(day) for day in answer["daily_breakdown"]})

    async def charges(self, period: CreditPeriod = "current_month", *, limit: int = 100) -> list[Charge]:
        """What was charged, newest first; the present hour is not among it yet."""
        rows = await self._http.json("GET", "/v1/credits/usage", query={"period": period, "limit": limit})
        return [
            Charge(
                begin=instant(row["from"]),
                end=instant(row["created_at"]),
                kind=row["usage_type"],
                dollars=row["credits_used"],
                resource_id=row["resource_id"],
            )
            for row in rows
        ]

    async def rates(self) -> Rates:
        answer = await self._http.json("GET", "/v1/credits/rates")
        execution = answer["vm_execution"]
        return Rates(
            per_vcpu_hour=_hourly(execution["cpu_rate_per_second_per_core"]),
            per_memory_gib_hour=_hourly(execution["ram_rate_per_gib_per_second"]),
            per_storage_gib_hour=answer["snapshot_storage"]["rate_per_gib_hour"],
            per_egress_gib=answer["egress"]["rate_per_gib"],
        )

    async def grant(
        self, dollars: float, *, account: str | None = None, note: str | None = None, id: str | None = None
    ) -> float:
        """For the administrator: `account` is an e-mail address or id, by default your own; the same `id` is granted
        once. Returns what that account has now."""
        options = {"account": account, "note": note, "id": id}
        body = {"dollars": dollars} | {name: value for name, value in options.items() if value is not None}
        return float((await self._http.json("POST", "/v2/credits/grants", json=body))["remaining"])


def _hourly(per_second: float) -> float:
    # Micro-dollars are whole; what a division by seconds left beyond them is not.
    return round(per_second * 3600, 6)


def _usage(wire: dict[str, Any]) -> Usage:
    return Usage(
        cost_dollars=wire["cost_dollars"],
        vcpu_hours=wire["cpu_hours"],
        memory_gib_hours=wire["ram_gib_hours"],
        storage_gib_hours=wire["storage_gib_hours"],
        egress_gib=wire["egress_gib"],
    )
