"""Credit through the client."""

from __future__ import annotations

import pytest
from daemon import Daemon

from instavm import AsyncInstaVM, InstaVM, InstaVMError


async def test_what_runs_is_counted_and_told(client: AsyncInstaVM) -> None:
    async with await client.sandboxes.create() as sandbox:
        await sandbox.run("sleep 1")
        balance = await client.credit.balance()
        assert 0 < balance.used and balance.remaining < balance.allocated and not balance.is_enforced
        usage = await client.credit.usage(3)
        assert len(usage.days) == 3 and usage.totals.vcpu_hours > 0 and usage.totals.cost_dollars >= balance.used
    rates = await client.credit.rates()
    assert (rates.per_vcpu_hour, rates.per_memory_gib_hour) == (0.05, 0.016)
    for charge in await client.credit.charges("all", limit=5):
        assert charge.kind and charge.begin <= charge.end


def test_the_administrator_grants_credit_once_for_each_id(daemon: Daemon) -> None:
    with InstaVM(daemon.api_key, daemon.base_url) as client:
        before = client.credit.balance("all")
        assert client.credit.grant(10, note="paid", id="order-1") == pytest.approx(before.remaining + 10, abs=0.1)
        assert client.credit.grant(10, id="order-1") == pytest.approx(before.remaining + 10, abs=0.1)
        assert client.credit.usage().days and client.credit.rates().per_egress_gib == 0.05
        assert isinstance(client.credit.charges(), list)
        with pytest.raises(InstaVMError) as unknown:
            client.credit.grant(1, account="nobody")
        assert unknown.value.code == "account_not_found"


def test_quotas_are_shown_with_what_is_used_and_set_by_the_administrator(daemon: Daemon) -> None:
    with InstaVM(daemon.api_key, daemon.base_url) as client:
        own = client.quotas.get()
        assert own.limits.requests_per_minute > 0
        assert own.used.sandboxes <= own.limits.sandboxes
        changed = client.quotas.set(own.account_id, snapshots=77)
        assert (changed.limits.snapshots, changed.limits.sandboxes) == (77, own.limits.sandboxes)
        assert client.quotas.set(own.account_id, snapshots=None).limits == own.limits
