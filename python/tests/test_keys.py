"""API keys through the client."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from daemon import Daemon

from instavm import AsyncInstaVM, InstaVM, InstaVMError


async def refused(secret: str, daemon: Daemon) -> str:
    async with AsyncInstaVM(secret, daemon.base_url) as client:
        try:
            await client.sandboxes.list()
        except InstaVMError as error:
            return error.code
    return "not refused"


async def test_keys_are_made_found_changed_rotated_and_revoked(client: AsyncInstaVM, daemon: Daemon) -> None:
    end = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(hours=1)
    key = await client.keys.create("ci", description="of the build", scope="run", expires_at=end)
    assert (key.name, key.description, key.scope, key.expires_at) == ("ci", "of the build", "run", end)
    assert key.secret.startswith(key.prefix) and key.secret not in repr(key)
    assert (await client.keys.list())[0] == await client.keys.get(key.id)
    assert (await client.keys.update(key.id, name="cd")).name == "cd"
    assert (await client.keys.expire(key.id, None)).expires_at is None
    rotated = await client.keys.rotate(key.id)
    assert await refused(key.secret, daemon) == "unauthenticated"
    assert await refused(rotated.secret, daemon) == "not refused"
    await client.keys.revoke(key.id)
    with pytest.raises(InstaVMError) as gone:
        await client.keys.get(key.id)
    assert gone.value.code == "key_not_found"


def test_a_key_may_be_for_some_sandboxes_only(daemon: Daemon) -> None:
    with InstaVM(daemon.api_key, daemon.base_url) as owner, owner.sandboxes.create() as other:
        key = owner.keys.create("team a", scope="run", sandbox_metadata={"team": "a"})
        with InstaVM(key.secret, daemon.base_url) as client, client.sandboxes.create() as made:
            assert made.info().metadata == {"team": "a"}
            assert [sandbox.id for sandbox in client.sandboxes.list()] == [made.id]
            with pytest.raises(InstaVMError):
                client.sandboxes.get(other.id)
            with pytest.raises(InstaVMError) as small:
                client.keys.list()
            assert small.value.code == "permission_denied"
        owner.keys.revoke(key.id)
