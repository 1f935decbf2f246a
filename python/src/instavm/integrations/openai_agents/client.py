"""The sandbox client of the OpenAI Agents SDK: makes, resumes and ends sandboxes."""

from __future__ import annotations

import uuid
from typing import Any

from agents.sandbox.entries import Mount
from agents.sandbox.errors import MountConfigError
from agents.sandbox.manifest import Manifest
from agents.sandbox.session.dependencies import Dependencies
from agents.sandbox.session.manager import Instrumentation
from agents.sandbox.session.sandbox_client import BaseSandboxClient
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec, resolve_snapshot

from ..._client import AsyncInstaVM, AsyncSandbox
from ...errors import InstaVMError
from .options import BACKEND_ID, InstaVMSandboxClientOptions, InstaVMSandboxSessionState
from .session import InstaVMSandboxSession
from .snapshots import run_snapshot_name


class InstaVMSandboxClient(BaseSandboxClient[InstaVMSandboxClientOptions]):
    backend_id = BACKEND_ID
    #: `SandboxRunConfig(client=…)` without options works, as in the announcement's example.
    supports_default_options = True

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        instrumentation: Instrumentation | None = None,
        dependencies: Dependencies | None = None,
    ) -> None:
        """The key and the address come from INSTAVM_API_KEY and INSTAVM_BASE_URL when they are not passed."""
        super().__init__()
        self._api_key = api_key
        self._base_url = base_url
        self._instrumentation = instrumentation or Instrumentation()
        self._dependencies = dependencies

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: InstaVMSandboxClientOptions | None = None,
    ) -> SandboxSession:
        options = options or InstaVMSandboxClientOptions()
        manifest = manifest or Manifest()
        self._check(manifest)
        session_id = uuid.uuid4()
        # It may refuse, and nobody would end the sandbox then.
        kept = resolve_snapshot(snapshot, str(session_id))
        client = self._client()
        try:
            sandbox = await make_sandbox(client, options)
        except BaseException:
            await client.aclose()
            raise
        state = InstaVMSandboxSessionState(
            session_id=session_id,
            snapshot=kept,
            manifest=manifest,
            exposed_ports=options.exposed_ports,
            sandbox_id=sandbox.id,
            base_url=client.base_url,
            options=options,
        )
        return self._wrap_session(
            InstaVMSandboxSession(client, state, make_sandbox), instrumentation=self._instrumentation
        )

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        """Reconnects while the sandbox lives; only when the service says that it is gone another one is made."""
        if not isinstance(state, InstaVMSandboxSessionState):
            raise TypeError("InstaVMSandboxClient.resume expects an InstaVMSandboxSessionState")
        client = self._client(state.base_url)
        try:
            lives = await _lives(client.sandboxes.attach(state.sandbox_id))
            if not lives:
                state.sandbox_id = (await make_sandbox(client, state.options)).id
                state.workspace_root_ready = False
        except BaseException:
            await client.aclose()
            raise
        session = InstaVMSandboxSession(client, state, make_sandbox)
        session._set_start_state_preserved(lives)
        return self._wrap_session(session, instrumentation=self._instrumentation)

    async def delete(self, session: SandboxSession) -> SandboxSession:
        inner = session._inner
        if not isinstance(inner, InstaVMSandboxSession):
            raise TypeError("InstaVMSandboxClient.delete expects an InstaVMSandboxSession")
        await inner.shutdown()
        return session

    def deserialize_session_state(self, payload: dict[str, object]) -> SandboxSessionState:
        parse: Any = getattr(BaseSandboxClient, "_deserialize_session_state_payload", None)
        if parse is not None:
            return parse(payload, InstaVMSandboxSessionState)
        return InstaVMSandboxSessionState.model_validate(payload)

    def _check(self, manifest: Manifest) -> None:
        """Refuses before a sandbox is made for it."""
        for path, entry in manifest.iter_entries():
            if isinstance(entry, Mount):
                message = f"{path}: mounts are not available on this server yet"
                raise MountConfigError(message=message, context={"backend": BACKEND_ID, "path": str(path)})
        # The SDK's own checks, in those versions that have them.
        check = getattr(self, "_validate_manifest_for_create", None)
        if check is not None:
            check(manifest)

    def _client(self, base_url: str | None = None) -> AsyncInstaVM:
        return AsyncInstaVM(self._api_key, base_url or self._base_url)


async def make_sandbox(
    client: AsyncInstaVM, options: InstaVMSandboxClientOptions, snapshot_id: str | None = None
) -> AsyncSandbox:
    """With a snapshot, by argument or option, the size is the snapshot's.

    So is the egress policy, unless an option is about it: a snapshot of a sandbox that was closed off is opened by an
    option only, not by the default of one.
    """
    snapshot_id = snapshot_id or options.snapshot_id
    return await client.sandboxes.create(
        memory_mb=options.memory_mb if snapshot_id is None else None,
        vcpu_count=options.cpu_count if snapshot_id is None else None,
        ttl_seconds=options.timeout,
        metadata=options.metadata,
        env=options.env,
        egress=options.egress_policy() if snapshot_id is None or options.has_egress_options else None,
        snapshot_id=snapshot_id,
        snapshot_on_expiry=(options.snapshot_name or run_snapshot_name()) if options.snapshot_on_terminate else None,
    )


async def _lives(sandbox: AsyncSandbox) -> bool:
    try:
        return (await sandbox.info()).state not in ("stopping", "stopped", "failed")
    except InstaVMError as error:
        if error.status in (404, 410):
            return False
        raise
