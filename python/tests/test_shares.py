"""Ports as addresses through the client and through the provider."""

from __future__ import annotations

import ssl
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlsplit

import pytest
from agents.sandbox.errors import ExposedPortUnavailableError
from daemon import Daemon

from instavm import AsyncInstaVM, AsyncSandbox, InstaVM, InstaVMError
from instavm.integrations.openai_agents import InstaVMSandboxClient, InstaVMSandboxClientOptions


async def test_shares_are_made_found_changed_and_revoked(client: AsyncInstaVM, sandbox: AsyncSandbox) -> None:
    share = await sandbox.share(8000)
    assert (share.port, share.is_public, share.sandbox_id) == (8000, False, sandbox.id)
    assert share.created_at.tzinfo is not None
    url = urlsplit(share.url)
    assert url.scheme == "https" and (url.hostname or "").startswith(f"{share.id}.")
    assert await sandbox.share(8000) == await client.shares.get(share.id) == share
    assert (await client.shares.update(share.id, is_public=True)).is_public
    assert (await sandbox.share(8000)).is_public
    assert (await sandbox.share(8000, rewrite_host=True)).rewrite_host
    changed = await client.shares.update(share.id, rewrite_host=False)
    assert changed.is_public and not changed.rewrite_host
    other = await sandbox.share(8001, is_public=True)
    assert await client.shares.list(sandbox.id) == [other, await client.shares.get(share.id)]
    assert other in await client.shares.list()
    assert await client.shares.list(sandbox.id, limit=1) == [other]
    assert await client.shares.list(sandbox.id, before=other.id) == [await client.shares.get(share.id)]
    await client.shares.revoke(share.id)
    await client.shares.revoke(share.id)
    with pytest.raises(InstaVMError) as gone:
        await client.shares.get(share.id)
    assert gone.value.code == "share_not_found"
    assert (await sandbox.share(8000)).id != share.id


async def test_links_open_a_share_until_they_end(client: AsyncInstaVM, sandbox: AsyncSandbox) -> None:
    share = await sandbox.share(8000)
    link = await client.shares.link(share.id, ttl_seconds=60)
    assert urlsplit(link.url).netloc == urlsplit(share.url).netloc and urlsplit(link.url).query
    assert link.expires_at - datetime.now(timezone.utc) <= timedelta(seconds=60)
    assert (await client.shares.link(share.id)).expires_at - link.expires_at > timedelta(minutes=50)
    assert link.id in link.url
    await client.shares.revoke_link(share.id, link.id)
    await client.shares.revoke_link(share.id, link.id)
    with pytest.raises(InstaVMError) as wrong:
        await client.shares.revoke_link(share.id, "nonsense")
    assert wrong.value.code == "invalid_argument"


def test_the_blocking_client_has_all_of_it(daemon: Daemon) -> None:
    with InstaVM(daemon.api_key, daemon.base_url) as client, client.sandboxes.create() as sandbox:
        share = sandbox.share(8000, is_public=True)
        assert client.shares.list(sandbox.id) == [share] == [client.shares.get(share.id)]
        assert not client.shares.update(share.id, is_public=False).is_public
        assert client.shares.link(share.id, ttl_seconds=5).url.startswith(share.url)
        client.shares.revoke_link(share.id, client.shares.link(share.id).id)
        authority = client.shares.authority()
        assert f"{share.id}.{authority.domain}" == urlsplit(share.url).hostname
        assert ssl.create_default_context(cadata=authority.certificate).get_ca_certs()
        client.shares.revoke(share.id)
        assert client.shares.list(sandbox.id) == []


async def test_a_port_is_resolved_to_a_public_address_the_same_each_time(
    provider: InstaVMSandboxClient, client: AsyncInstaVM
) -> None:
    session = await provider.create()
    endpoint = await session.resolve_exposed_port(8000)
    [share] = await client.shares.list(session._inner.state.sandbox_id)  # type: ignore[attr-defined]
    assert share.is_public and endpoint.url_for("http") == f"{share.url}/"
    assert endpoint.url_for("ws") == f"{share.url}/".replace("https", "wss", 1)
    assert await session.resolve_exposed_port(8000) == endpoint
    await client.sandboxes.attach(share.sandbox_id).delete()
    with pytest.raises(ExposedPortUnavailableError) as ended:
        await session.resolve_exposed_port(8000)
    assert ended.value.context["code"] == "invalid_state"
    await provider.delete(session)


async def test_only_declared_ports_are_resolved_when_some_are(provider: InstaVMSandboxClient) -> None:
    session = await provider.create(options=InstaVMSandboxClientOptions(exposed_ports=(3000,)))
    assert (await session.resolve_exposed_port(3000)).tls
    with pytest.raises(ExposedPortUnavailableError, match="not configured"):
        await session.resolve_exposed_port(3001)
    await provider.delete(session)


async def test_a_port_that_is_not_to_be_public_is_opened_by_its_query(
    provider: InstaVMSandboxClient, client: AsyncInstaVM
) -> None:
    session: Any = await provider.create(options=InstaVMSandboxClientOptions(exposed_ports_public=False))
    endpoint = await session.resolve_exposed_port(8000)
    [share] = await client.shares.list(session._inner.state.sandbox_id)
    assert not share.is_public and endpoint.query
    assert endpoint.url_for("http") == f"{share.url}/?{endpoint.query}"
    assert endpoint.query not in str(provider.serialize_session_state(session._inner.state))
    await provider.delete(session)
