"""What is shown to the world, for callers that block: ports under addresses, and domains for these."""

from __future__ import annotations

from collections.abc import Sequence

from .._client import AsyncInstaVM
from .._domains import Domain, DomainHealth
from .._shares import MOST_OPEN, PreviewAuthority, Share, ShareLink
from .loop import Loop


class Shares:
    """As `AsyncShares`. `Sandbox.share` makes them."""

    def __init__(self, loop: Loop, client: AsyncInstaVM) -> None:
        self._loop = loop
        self._inner = client.shares

    def list(
        self, sandbox_id: str | None = None, *, limit: int = MOST_OPEN, before: str | None = None
    ) -> Sequence[Share]:
        return self._loop.run(self._inner.list(sandbox_id, limit=limit, before=before))

    def get(self, share_id: str) -> Share:
        return self._loop.run(self._inner.get(share_id))

    def update(self, share_id: str, *, is_public: bool | None = None, rewrite_host: bool | None = None) -> Share:
        return self._loop.run(self._inner.update(share_id, is_public=is_public, rewrite_host=rewrite_host))

    def revoke(self, share_id: str) -> None:
        self._loop.run(self._inner.revoke(share_id))

    def authority(self) -> PreviewAuthority:
        return self._loop.run(self._inner.authority())

    def link(self, share_id: str, *, ttl_seconds: int | None = None) -> ShareLink:
        return self._loop.run(self._inner.link(share_id, ttl_seconds=ttl_seconds))

    def revoke_link(self, share_id: str, link_id: str) -> None:
        self._loop.run(self._inner.revoke_link(share_id, link_id))


class Domains:
    """As `AsyncDomains`."""

    def __init__(self, loop: Loop, client: AsyncInstaVM) -> None:
        self._loop = loop
        self._inner = client.domains

    def create(self, domain: str, share_id: str, *, dns_provider: str | None = None) -> Domain:
        return self._loop.run(self._inner.create(domain, share_id, dns_provider=dns_provider))

    def list(self) -> Sequence[Domain]:
        return self._loop.run(self._inner.list())

    def get(self, domain_id: int) -> Domain:
        return self._loop.run(self._inner.get(domain_id))

    def verify(self, domain_id: int) -> Domain:
        return self._loop.run(self._inner.verify(domain_id))

    def wait_until_issued(self, domain_id: int, *, timeout_seconds: float = 600.0) -> Domain:
        return self._loop.run(self._inner.wait_until_issued(domain_id, timeout_seconds=timeout_seconds))

    def health(self, domain_id: int) -> DomainHealth:
        return self._loop.run(self._inner.health(domain_id))

    def delete(self, domain_id: int) -> None:
        self._loop.run(self._inner.delete(domain_id))
