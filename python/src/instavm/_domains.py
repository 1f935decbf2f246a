"""Custom domains: host names of one's own for shares."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ._http import AsyncHttp, instant
from .errors import InstaVMError

_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class DnsRecord:
    type: str
    name: str
    value: str


@dataclass(frozen=True)
class Domain:
    id: int
    #: In lower case, internationalized labels as A-labels.
    domain: str
    share_id: str
    #: `verify` leads from "pending" or "failed" over "verified" to "issued".
    status: str
    #: Leads to the share once it is issued.
    url: str
    #: Why it failed and what to do; None unless it did.
    error: str | None
    error_code: str | None
    #: To be set before `verify`: a proof of whose the domain is, and the way to the server. A domain that can have no
    #: CNAME (example.com) takes an A record to the same host.
    txt_record: DnsRecord
    cname: DnsRecord
    created_at: datetime
    issued_at: datetime | None


@dataclass(frozen=True)
class DomainHealth:
    domain: Domain
    cert_present: bool
    key_present: bool
    cert_expires_at: datetime | None
    #: The server reached itself by this name, with a certificate for it. Whether the world does is for DNS to say.
    proxy_active: bool


class AsyncDomains:
    """The account's custom domains."""

    def __init__(self, http: AsyncHttp) -> None:
        self._http = http

    async def create(self, domain: str, share_id: str, *, dns_provider: str | None = None) -> Domain:
        """The same one when it is there already for this share. `dns_provider` is kept for people to read."""
        body = {"domain": domain, "share_id": share_id, "dns_provider": dns_provider}
        return _domain(await self._http.json("POST", "/v1/custom-domains", json=body))

    async def list(self) -> list[Domain]:
        """Newest first."""
        answer = await self._http.json("GET", "/v1/custom-domains")
        return [_domain(domain) for domain in answer["domains"]]

    async def get(self, domain_id: int) -> Domain:
        return _domain(await self._http.json("GET", _path(domain_id)))

    async def verify(self, domain_id: int) -> Domain:
        """Has the server look for the TXT record and then order a certificate, which goes on after the answer.

        The answer is what is known when DNS has answered, "failed" included. Again after a failure; joins what is
        under way; changes nothing for a domain that is issued.
        """
        return _domain(await self._http.json("POST", f"{_path(domain_id)}/verify"))

    async def wait_until_issued(self, domain_id: int, *, timeout_seconds: float = 600.0) -> Domain:
        """Returns when the certificate is there. Verifies nothing by itself.

        Raises `InstaVMError` with the code of what failed, such as `domain_unverified` or `certificate_failed`, or
        `wait_timeout`.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            domain = await self.get(domain_id)
            if domain.status == "issued":
                return domain
            if domain.status == "failed":
                raise InstaVMError(domain.error_code or "unexpected_answer", f"{domain.domain}: {domain.error}")
            if time.monotonic() + _POLL_SECONDS > deadline:
                hint = "It is to be verified first." if domain.status == "pending" else "It goes on; wait again."
                raise InstaVMError("wait_timeout", f"{domain.domain} is still {domain.status}", hint=hint)
            await asyncio.sleep(_POLL_SECONDS)

    async def health(self, domain_id: int) -> DomainHealth:
        answer = await self._http.json("GET", f"{_path(domain_id)}/health")
        return DomainHealth(
            domain=_domain(answer),
            cert_present=answer["cert_present"],
            key_present=answer["key_present"],
            cert_expires_at=_optional_instant(answer["cert_expires_at"]),
            proxy_active=answer["proxy_active"],
        )

    async def delete(self, domain_id: int) -> None:
        """With its certificate, whatever is under way."""
        await self._http.json("DELETE", _path(domain_id))


def _path(domain_id: int) -> str:
    return f"/v1/custom-domains/{int(domain_id)}"


def _optional_instant(text: str | None) -> datetime | None:
    return None if text is None else instant(text)


def _domain(answer: dict[str, Any]) -> Domain:
    txt, cname = answer["setup"]["txt_record"], answer["setup"]["cname"]
    return Domain(
        id=answer["id"],
        domain=answer["domain"],
        share_id=answer["share_id"],
        status=answer["status"],
        url=answer["url"],
        error=answer["last_error"],
        error_code=answer["last_error_code"],
        txt_record=DnsRecord("TXT", txt["name"], txt["value"]),
        cname=DnsRecord("CNAME", cname["name"], cname["target"]),
        created_at=instant(answer["created_at"]),
        issued_at=_optional_instant(answer["issued_at"]),
    )
