"""What an account has and did, for callers that block: keys, credit, the audit trail, quotas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from .._audit import AuditEvent, AuditPage
from .._client import AsyncInstaVM
from .._credit import Charge, CreditBalance, CreditPeriod, Rates, UsageByDay
from .._keys import ApiKey, NewApiKey
from .._quotas import AccountQuotas
from .loop import Loop


class ApiKeys:
    """As `AsyncApiKeys`."""

    def __init__(self, loop: Loop, client: AsyncInstaVM) -> None:
        self._loop = loop
        self._inner = client.keys

    def create(self, name: str | None = None, **options: Any) -> NewApiKey:
        return self._loop.run(self._inner.create(name, **options))

    def list(self) -> Sequence[ApiKey]:
        return self._loop.run(self._inner.list())

    def get(self, key_id: int) -> ApiKey:
        return self._loop.run(self._inner.get(key_id))

    def update(self, key_id: int, *, name: str | None = None, description: str | None = None) -> ApiKey:
        return self._loop.run(self._inner.update(key_id, name=name, description=description))

    def expire(self, key_id: int, at: datetime | None) -> ApiKey:
        return self._loop.run(self._inner.expire(key_id, at))

    def rotate(self, key_id: int, *, grace_seconds: int = 0) -> NewApiKey:
        return self._loop.run(self._inner.rotate(key_id, grace_seconds=grace_seconds))

    def revoke(self, key_id: int) -> None:
        self._loop.run(self._inner.revoke(key_id))


class Credit:
    """As `AsyncCredit`."""

    def __init__(self, loop: Loop, client: AsyncInstaVM) -> None:
        self._loop = loop
        self._inner = client.credit

    def balance(self, period: CreditPeriod = "current_month") -> CreditBalance:
        return self._loop.run(self._inner.balance(period))

    def usage(self, days: int = 30) -> UsageByDay:
        return self._loop.run(self._inner.usage(days))

    def charges(self, period: CreditPeriod = "current_month", *, limit: int = 100) -> list[Charge]:
        return self._loop.run(self._inner.charges(period, limit=limit))

    def rates(self) -> Rates:
        return self._loop.run(self._inner.rates())

    def grant(self, dollars: float, **options: Any) -> float:
        return self._loop.run(self._inner.grant(dollars, **options))


class Audit:
    """As `AsyncAudit`, which has the full description of every option."""

    def __init__(self, loop: Loop, client: AsyncInstaVM) -> None:
        self._loop = loop
        self._inner = client.audit

    def catalog(self) -> dict[str, list[str]]:
        return self._loop.run(self._inner.catalog())

    def events(self, **options: Any) -> Iterator[AuditEvent]:
        return self._loop.iterate(self._inner.events(**options))

    def page(self, **options: Any) -> AuditPage:
        return self._loop.run(self._inner.page(**options))

    def get(self, event_id: str) -> AuditEvent:
        return self._loop.run(self._inner.get(event_id))

    def follow(self, **options: Any) -> Iterator[AuditEvent]:
        return self._loop.iterate(self._inner.follow(**options))


class Quotas:
    """As `AsyncQuotas`."""

    def __init__(self, loop: Loop, client: AsyncInstaVM) -> None:
        self._loop = loop
        self._inner = client.quotas

    def get(self) -> AccountQuotas:
        return self._loop.run(self._inner.get())

    def set(self, account: str, **changes: int | None) -> AccountQuotas:
        return self._loop.run(self._inner.set(account, **changes))
