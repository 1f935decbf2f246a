"""The blocking client: one server, one key."""

from __future__ import annotations

from .._client import AsyncInstaVM
from .account import ApiKeys, Audit, Credit, Quotas
from .loop import Loop
from .previews import Domains, Shares
from .sandboxes import Sandboxes, Snapshots


class InstaVM:
    """One server, one key. Close it, or use it as a context manager."""

    def __init__(self, api_key: str | None = None, base_url: str | None = None) -> None:
        self._inner = AsyncInstaVM(api_key, base_url)
        self._loop = Loop()
        self.base_url = self._inner.base_url
        self.sandboxes = Sandboxes(self._loop, self._inner)
        self.snapshots = Snapshots(self._loop, self._inner)
        self.shares = Shares(self._loop, self._inner)
        self.domains = Domains(self._loop, self._inner)
        self.keys = ApiKeys(self._loop, self._inner)
        self.credit = Credit(self._loop, self._inner)
        self.audit = Audit(self._loop, self._inner)
        self.quotas = Quotas(self._loop, self._inner)

    def close(self) -> None:
        """Idempotent. Sandboxes go on until they are deleted or their lifetime is over."""
        if not self._loop.is_closed:
            self._loop.run(self._inner.aclose())
            self._loop.close()

    def __enter__(self) -> InstaVM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
