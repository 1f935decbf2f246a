"""The audit trail through the client."""

from __future__ import annotations

import pytest
from daemon import Daemon

from instavm import AsyncInstaVM, InstaVM, InstaVMError


async def test_what_was_done_is_iterated_filtered_and_followed(client: AsyncInstaVM) -> None:
    before = (await client.audit.page(limit=1)).events[0]
    made = [await client.keys.create(f"key {number}") for number in range(3)]
    for key in made:
        await client.keys.revoke(key.id)
    names = [event.details["name"] async for event in client.audit.events(type="key.revoked")]
    assert names[:3] == ["key 2", "key 1", "key 0"]
    page = await client.audit.page(type="key.created", limit=2)
    assert [event.details["name"] for event in page.events] == ["key 2", "key 1"] and page.next_cursor
    rest = await client.audit.page(type="key.created", limit=1, cursor=page.next_cursor)
    assert rest.events[0].details["name"] == "key 0" and rest.events[0].actor.type == "api_key"
    seen = []
    async for event in client.audit.follow(group="key", after=before.id):
        seen.append(event.type)
        if len(seen) == 6:
            break
    assert seen == ["key.created"] * 3 + ["key.revoked"] * 3


def test_one_event_and_the_catalog_of_types(daemon: Daemon) -> None:
    with InstaVM(daemon.api_key, daemon.base_url) as client:
        event = next(client.audit.events())
        assert client.audit.get(event.id) == event and event.id.startswith("evt_")
        assert "egress.denied" in client.audit.catalog()["egress"]
        with pytest.raises(InstaVMError) as unknown:
            client.audit.get("evt_100000000")
        assert unknown.value.code == "event_not_found"
        with pytest.raises(TypeError, match="there is no filter kind"):
            client.audit.page(kind="key")
