"""What a sandbox is made with, and what identifies a session when it is stored."""

from __future__ import annotations

from typing import Any, Final, Literal

from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from pydantic import ConfigDict

from ..._egress import EgressPolicy

BACKEND_ID: Final = "instavm"

#: An agent thinks between its commands; the daemon's own default would end its sandbox under it.
DEFAULT_LIFETIME_SECONDS = 3600


class InstaVMSandboxClientOptions(BaseSandboxClientOptions):
    """Named and ordered as in the official client; all of them are optional."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["instavm"] = BACKEND_ID
    memory_mb: int | None = None
    cpu_count: int | None = None
    #: Lifetime of the sandbox in seconds.
    timeout: int = DEFAULT_LIFETIME_SECONDS
    #: Under the manifest's own environment.
    env: dict[str, str] | None = None
    metadata: dict[str, Any] | None = None
    snapshot_id: str | None = None
    #: The only ports that `resolve_exposed_port` takes; any port when it is empty.
    exposed_ports: tuple[int, ...] = ()
    snapshot_on_terminate: bool | None = None
    snapshot_name: str | None = None
    #: False: no way out but the listed domains and address ranges. The six about the network are true, and the lists
    #: empty, when left out.
    allow_internet_access: bool | None = None
    allow_http: bool | None = None
    allow_https: bool | None = None
    allow_package_managers: bool | None = None
    allowed_domains: list[str] | None = None
    allowed_cidrs: list[str] | None = None
    #: Ours alone. False: a resolved port is opened by its `query` only, a token that ends with the lifetime.
    exposed_ports_public: bool = True

    @property
    def has_egress_options(self) -> bool:
        """Whether any of them is about the network."""
        flags = (self.allow_internet_access, self.allow_http, self.allow_https, self.allow_package_managers)
        return any(value is not None for value in (*flags, self.allowed_domains, self.allowed_cidrs))

    def egress_policy(self) -> EgressPolicy:
        """The policy that the options ask for, all of them together."""
        internet = self.allow_internet_access is not False
        return EgressPolicy(
            allow_http=internet and self.allow_http is not False,
            allow_https=internet and self.allow_https is not False,
            allow_package_managers=internet and self.allow_package_managers is not False,
            allowed_domains=self.allowed_domains or [],
            allowed_cidrs=self.allowed_cidrs or [],
        )

    def with_egress_policy(self, policy: EgressPolicy) -> InstaVMSandboxClientOptions:
        """The same options, asking for another policy."""
        return self.model_copy(
            update={
                "allow_internet_access": True,
                "allow_http": policy.allow_http,
                "allow_https": policy.allow_https,
                "allow_package_managers": policy.allow_package_managers,
                "allowed_domains": list(policy.allowed_domains),
                "allowed_cidrs": list(policy.allowed_cidrs),
            }
        )


class InstaVMSandboxSessionState(SandboxSessionState):
    """Holds no key. `options` are what a sandbox is made again with."""

    type: Literal["instavm"] = BACKEND_ID
    sandbox_id: str
    base_url: str
    options: InstaVMSandboxClientOptions
