"""Custom domains through the client, against a daemon with a real certificate authority."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from acme_daemon import AcmeDaemon, acme_daemon

from instavm import AsyncInstaVM, InstaVM, InstaVMError


@pytest.fixture(scope="module")
def stand() -> Iterator[AcmeDaemon]:
    yield from acme_daemon()


async def test_domains_are_made_verified_looked_at_and_deleted(stand: AcmeDaemon) -> None:
    async with AsyncInstaVM(stand.api_key, stand.base_url) as client, await client.sandboxes.create() as sandbox:
        share = await sandbox.share(8000)
        made = await client.domains.create("Py.example.com", share.id, dns_provider="mine")
        assert (made.domain, made.share_id, made.status, made.error) == ("py.example.com", share.id, "pending", None)
        assert (made.cname.type, made.cname.value) == ("CNAME", urlsplit(share.url).hostname)
        assert await client.domains.create("py.example.com", share.id) == made
        with pytest.raises(InstaVMError) as waited:
            await client.domains.wait_until_issued(made.id, timeout_seconds=0)
        assert waited.value.code == "wait_timeout" and "verified first" in (waited.value.hint or "")

        failed = await client.domains.verify(made.id)
        assert failed.status == "failed" and made.txt_record.value in (failed.error or "")
        with pytest.raises(InstaVMError) as refused:
            await client.domains.wait_until_issued(made.id)
        assert refused.value.code == failed.error_code == "domain_unverified"

        stand.add_txt(made.txt_record.name, made.txt_record.value)
        await client.domains.verify(made.id)
        issued = await client.domains.wait_until_issued(made.id)
        assert issued.status == "issued" and issued.issued_at is not None and issued.issued_at >= made.created_at
        assert await client.domains.list() == [issued] == [await client.domains.get(made.id)]
        health = await client.domains.health(made.id)
        assert health.domain == issued
        assert health.cert_present and health.key_present and health.proxy_active
        assert health.cert_expires_at is not None and health.cert_expires_at > issued.issued_at
        await client.domains.delete(made.id)
        with pytest.raises(InstaVMError) as gone:
            await client.domains.get(made.id)
        assert gone.value.code == "domain_not_found"


def test_the_blocking_client_has_all_of_it(stand: AcmeDaemon) -> None:
    with InstaVM(stand.api_key, stand.base_url) as client, client.sandboxes.create() as sandbox:
        made = client.domains.create("blocking.example.com", sandbox.share(8000).id)
        stand.add_txt(made.txt_record.name, made.txt_record.value)
        assert client.domains.verify(made.id).error is None
        issued = client.domains.wait_until_issued(made.id)
        assert client.domains.list() == [issued] == [client.domains.get(made.id)]
        assert client.domains.health(made.id).proxy_active
        client.domains.delete(made.id)
        assert client.domains.list() == []
