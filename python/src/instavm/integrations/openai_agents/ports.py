"""Ports of a sandbox as the Agents SDK asks for them."""

from __future__ import annotations

from urllib.parse import urlsplit

from agents.sandbox.errors import ExposedPortUnavailableError
from agents.sandbox.types import ExposedPortEndpoint

from ..._client import AsyncInstaVM, AsyncSandbox
from ...errors import InstaVMError
from .options import InstaVMSandboxSessionState


async def resolve_exposed_port(
    client: AsyncInstaVM, sandbox: AsyncSandbox, state: InstaVMSandboxSessionState, port: int
) -> ExposedPortEndpoint:
    """Public, or with `exposed_ports_public=False` behind a token in `query` that ends with the lifetime.

    The server is asked each time, and answers the same until the share is revoked.
    """
    query = ""
    try:
        share = await sandbox.share(port, is_public=state.options.exposed_ports_public)
        if not share.is_public:
            link = await client.shares.link(share.id, ttl_seconds=state.options.timeout)
            query = urlsplit(link.url).query
    except InstaVMError as error:
        raise ExposedPortUnavailableError(
            port=port,
            exposed_ports=state.exposed_ports,
            reason="backend_unavailable",
            context={"backend": "instavm", "code": error.code, "detail": str(error)},
            cause=error,
        ) from error
    url = urlsplit(share.url)
    tls = url.scheme == "https"
    return ExposedPortEndpoint(host=url.hostname or "", port=url.port or (443 if tls else 80), tls=tls, query=query)
