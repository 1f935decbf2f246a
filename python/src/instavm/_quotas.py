"""How much an account may have and ask for, and what it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._http import AsyncHttp, path_segment


@dataclass(frozen=True)
class QuotaUse:
    """What an account has of what is limited."""

    #: That run.
    sandboxes: int
    #: Of all of them together.
    vcpus: int
    memory_mib: int
    snapshots: int
    #: By snapshots and by what suspended sandboxes keep.
    stored_mib: int


@dataclass(frozen=True)
class QuotaLimits(QuotaUse):
    creates_per_minute: int
    requests_per_minute: int


@dataclass(frozen=True)
class AccountQuotas:
    account_id: str
    limits: QuotaLimits
    used: QuotaUse


class AsyncQuotas:
    def __init__(self, http: AsyncHttp) -> None:
        self._http = http

    async def get(self) -> AccountQuotas:
        """Your own."""
        return _quotas(await self._http.json("GET", "/v2/quotas"))

    async def set(self, account: str, **changes: int | None) -> AccountQuotas:
        """For the administrator. By the names of `QuotaLimits`: a number, or None for the server's default; what is
        left out stays. `account` is an e-mail address or an id. It holds from the next request on; what runs already
        goes on."""
        path = f"/v2/accounts/{path_segment(account)}/quotas"
        return _quotas(await self._http.json("PATCH", path, json=changes))


def _quotas(wire: dict[str, Any]) -> AccountQuotas:
    use = ("sandboxes", "vcpus", "memory_mib", "snapshots", "stored_mib")
    by_minute = ("creates_per_minute", "requests_per_minute")
    return AccountQuotas(
        account_id=wire["account_id"],
        limits=QuotaLimits(**{name: wire["quotas"][name] for name in use + by_minute}),
        used=QuotaUse(**{name: wire["used"][name] for name in use}),
    )
