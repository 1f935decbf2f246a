"""Outbound access through the client and through the provider."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from daemon import Daemon
from patience import PATIENCE_SECONDS

from instavm import AsyncInstaVM, AsyncSandbox, EgressLogEntry, EgressPolicy, InstaVM, InstaVMError
from instavm.integrations.openai_agents import InstaVMSandboxClient, InstaVMSandboxClientOptions

OPEN = EgressPolicy(allowed_domains=[], allowed_cidrs=[])
CLOSED = EgressPolicy(False, False, False, [], [])
SOME = EgressPolicy(False, False, False, ["*.example.com"], ["192.0.2.0/24"])


async def policy_with(provider: InstaVMSandboxClient, **options: Any) -> EgressPolicy:
    session = await provider.create(options=InstaVMSandboxClientOptions(**options))
    try:
        return await session._inner.get_egress_policy()  # type: ignore[attr-defined]
    finally:
        await provider.delete(session)


async def test_a_sandbox_has_the_policy_it_was_made_with_and_the_one_it_is_given(client: AsyncInstaVM) -> None:
    async with await client.sandboxes.create(egress=SOME) as sandbox:
        assert await sandbox.get_egress_policy() == SOME
        await sandbox.set_egress_policy(CLOSED)
        assert await sandbox.get_egress_policy() == CLOSED
        with pytest.raises(InstaVMError) as wrong:
            await sandbox.set_egress_policy(EgressPolicy(allowed_domains=["a b"]))
        assert wrong.value.code == "invalid_argument" and "a b" in wrong.value.message
        assert await sandbox.get_egress_policy() == CLOSED


async def test_a_destination_is_explained_without_connecting(sandbox: AsyncSandbox) -> None:
    await sandbox.set_egress_policy(EgressPolicy(False, False, False, [], ["192.0.2.0/24"]))
    allowed = await sandbox.test_egress("192.0.2.7:22")
    assert (allowed.allowed, allowed.rule, allowed.reason) == (True, "allowed_cidrs:192.0.2.0/24", None)
    assert [one.address for one in allowed.addresses] == ["192.0.2.7"]
    await sandbox.set_egress_policy(CLOSED)
    denied = await sandbox.test_egress("other.test:443")
    assert (denied.allowed, denied.rule) == (False, "default_deny") and "other.test" in (denied.reason or "")
    with pytest.raises(InstaVMError, match="name:port"):
        await sandbox.test_egress("nowhere")


async def test_the_log_is_read_and_followed(sandbox: AsyncSandbox) -> None:
    assert await sandbox.egress_log() == []
    connect = f"import socket; socket.create_connection(('10.1.2.3', 81), {PATIENCE_SECONDS})"
    assert b"ConnectionRefusedError" in (await sandbox.run(["python3", "-c", connect])).stderr
    seen = await asyncio.wait_for(anext(sandbox.follow_egress_log(after=0)), PATIENCE_SECONDS)
    assert isinstance(seen, EgressLogEntry)
    assert (seen.id, seen.host, seen.port, seen.outcome, seen.repeated) == (1, "10.1.2.3", 81, "denied", 1)
    assert "10.1.2.3" in (seen.reason or "") and seen.at.tzinfo is not None
    assert await sandbox.egress_log(verdict="denied", host="10.1.2.3", after=0, limit=5) == [seen]
    assert await sandbox.egress_log(verdict="allowed") == await sandbox.egress_log(before=1) == []
    with pytest.raises(InstaVMError) as wrong:
        await sandbox.egress_log(limit=0)
    assert wrong.value.code == "invalid_argument"


def test_the_blocking_client_has_all_of_it(daemon: Daemon) -> None:
    with InstaVM(daemon.api_key, daemon.base_url) as client, client.sandboxes.create(egress=SOME) as sandbox:
        assert sandbox.get_egress_policy() == SOME
        assert sandbox.test_egress("192.0.2.7:22").allowed
        assert sandbox.egress_log() == []


async def test_the_providers_sandboxes_have_the_access_that_their_options_say(provider: InstaVMSandboxClient) -> None:
    assert await policy_with(provider) == OPEN
    assert await policy_with(provider, allow_http=False) == EgressPolicy(False, True, True, [], [])
    lists = {"allowed_domains": ["*.example.com"], "allowed_cidrs": ["192.0.2.0/24"]}
    assert await policy_with(provider, allow_internet_access=False, **lists) == SOME
    # No internet is no package registry either, as the contract has it.
    assert await policy_with(provider, allow_internet_access=False, allow_package_managers=True) == CLOSED
    with pytest.raises(InstaVMError, match="a b"):
        await policy_with(provider, allowed_domains=["a b"])


async def test_a_session_comes_back_with_the_policy_that_was_set_last(
    provider: InstaVMSandboxClient, client: AsyncInstaVM
) -> None:
    session = await provider.create()
    await session._inner.set_egress_policy(SOME)  # type: ignore[attr-defined]
    stored = json.dumps(provider.serialize_session_state(session._inner.state))
    sandbox = client.sandboxes.attach(session._inner.state.sandbox_id)  # type: ignore[attr-defined]
    # Someone else may have changed it meanwhile.
    await sandbox.set_egress_policy(CLOSED)
    again = await provider.resume(provider.deserialize_session_state(json.loads(stored)))
    assert await again._inner.get_egress_policy() == CLOSED  # type: ignore[attr-defined]
    await sandbox.delete()
    fresh = await provider.resume(provider.deserialize_session_state(json.loads(stored)))
    assert await fresh._inner.get_egress_policy() == SOME  # type: ignore[attr-defined]
    await provider.delete(fresh)


async def test_a_closed_off_snapshot_is_opened_only_by_an_option(
    provider: InstaVMSandboxClient, client: AsyncInstaVM, sandbox: AsyncSandbox
) -> None:
    await sandbox.set_egress_policy(CLOSED)
    snapshot = await sandbox.snapshot()
    assert await policy_with(provider, snapshot_id=snapshot.id) == CLOSED
    opened = await policy_with(provider, snapshot_id=snapshot.id, allowed_domains=["example.org"])
    assert opened == EgressPolicy(allowed_domains=["example.org"], allowed_cidrs=[])
    await client.snapshots.delete(snapshot.id)
