"""A sandbox as the Agents SDK sees it."""

from __future__ import annotations

import asyncio
import inspect
import io
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from agents.sandbox.errors import (
    ExecTimeoutError,
    InvalidManifestPathError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
    WorkspaceStartError,
    WorkspaceWriteTypeError,
)
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.pty_types import PtyExecUpdate
from agents.sandbox.types import ExecResult, ExposedPortEndpoint, User

from ..._client import AsyncInstaVM, AsyncSandbox
from ..._egress import EgressPolicy
from ...errors import InstaVMError
from .options import InstaVMSandboxClientOptions, InstaVMSandboxSessionState
from .ports import resolve_exposed_port
from .processes import Processes, transport_error
from .snapshots import referenced_snapshot, run_snapshot_name, snapshot_reference

_log = logging.getLogger(__name__)

MakeSandbox = Callable[[AsyncInstaVM, InstaVMSandboxClientOptions, str | None], Awaitable[AsyncSandbox]]

#: openai-agents after 0.14.1 tells whether a path will be written.
_KNOWS_FOR_WRITE = "for_write" in inspect.signature(BaseSandboxSession.normalize_path).parameters
_READ_CHUNK_BYTES = 512 * 1024


class InstaVMSandboxSession(BaseSandboxSession):
    state: InstaVMSandboxSessionState

    def __init__(self, client: AsyncInstaVM, state: InstaVMSandboxSessionState, make_sandbox: MakeSandbox) -> None:
        self.state = state
        self._client = client
        self._make_sandbox = make_sandbox
        self.sandbox: AsyncSandbox = client.sandboxes.attach(state.sandbox_id)
        self._processes = Processes(self.sandbox)
        self._ending = asyncio.Lock()
        self._ended = False

    # ------------------------------------------------------------------------------------------- lifecycle

    async def running(self) -> bool:
        try:
            # One that is suspended is woken by its next use.
            return (await self.sandbox.info()).state in ("running", "suspending", "suspended", "resuming")
        except InstaVMError:
            return False

    async def _prepare_backend_workspace(self) -> None:
        root = Path(self.state.manifest.root)
        try:
            await self.sandbox.files.mkdir(str(root), parents=True)
        except InstaVMError as error:
            # A sandbox that has ended stays ended: another one in its place would lose the agent's work in silence.
            raise WorkspaceStartError(path=root, context=_context(error), cause=error) from error

    async def _shutdown_backend(self) -> None:
        """Ends the sandbox, once; one that is gone already is ended."""
        async with self._ending:
            if self._ended:
                return
            try:
                await self.sandbox.delete()
            except InstaVMError as error:
                if error.status not in (404, 410):
                    raise
            self._ended = True
            await self._client.aclose()

    # -------------------------------------------------------------------------------------------- commands

    async def exec(
        self,
        *command: str | Path,
        timeout: float | None = None,
        shell: bool | list[str] = True,
        user: str | User | None = None,
    ) -> ExecResult:
        argv = self._prepare_exec_command(*command, shell=shell, user=None)
        return await self._run(argv, timeout, _name(user))

    async def _exec_internal(self, *command: str | Path, timeout: float | None = None) -> ExecResult:
        return await self._run([str(part) for part in command], timeout, None)

    async def _run(self, argv: list[str], timeout: float | None, user: str | None) -> ExecResult:
        timeout_ms = None if timeout is None else max(1, int(timeout * 1000))
        env = await self._environment()
        try:
            result = await self.sandbox.run(argv, cwd=self._cwd(), env=env, user=user, timeout_ms=timeout_ms)
        except InstaVMError as error:
            if error.code == "cwd_not_found":
                # The workspace is made by commands too.
                return await self._run_in_root(argv, timeout_ms, env, user)
            raise transport_error(argv, error) from error
        if result.timed_out:
            raise ExecTimeoutError(command=argv, timeout_s=timeout)
        return ExecResult(stdout=result.stdout, stderr=result.stderr, exit_code=result.exit_code)

    async def _run_in_root(
        self, argv: list[str], timeout_ms: int | None, env: dict[str, str], user: str | None
    ) -> ExecResult:
        try:
            result = await self.sandbox.run(argv, cwd="/", env=env, user=user, timeout_ms=timeout_ms)
        except InstaVMError as error:
            raise transport_error(argv, error) from error
        if result.timed_out:
            raise ExecTimeoutError(command=argv, timeout_s=None if timeout_ms is None else timeout_ms / 1000)
        return ExecResult(stdout=result.stdout, stderr=result.stderr, exit_code=result.exit_code)

    def supports_pty(self) -> bool:
        return True

    async def pty_exec_start(
        self,
        *command: str | Path,
        timeout: float | None = None,
        shell: bool | list[str] = True,
        user: str | User | None = None,
        tty: bool = False,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        return await self._processes.start(
            self._prepare_exec_command(*command, shell=shell, user=None),
            cwd=self._cwd(),
            env=await self._environment(),
            user=_name(user),
            tty=tty,
            yield_time_s=yield_time_s,
            max_output_tokens=max_output_tokens,
        )

    async def pty_write_stdin(
        self,
        *,
        session_id: int,
        chars: str,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        return await self._processes.write_stdin(
            session_id, chars, yield_time_s=yield_time_s, max_output_tokens=max_output_tokens
        )

    async def pty_terminate_all(self) -> None:
        await self._processes.close()

    def _cwd(self) -> str:
        return str(self.state.manifest.root)

    async def _environment(self) -> dict[str, str]:
        """The options' own reached the sandbox when it was made; the manifest's stands over it."""
        return dict(await self.state.manifest.environment.resolve())

    # ----------------------------------------------------------------------------------------------- files

    async def read(self, path: Path, *, user: str | User | None = None) -> io.IOBase:
        return io.BytesIO(await self._contents(path, user=user))

    async def _read_bounded(self, path: Path, *, max_bytes: int) -> bytes:
        return await self._contents(path, max_bytes=max_bytes)

    async def _contents(self, path: Path, *, user: str | User | None = None, max_bytes: int | None = None) -> bytes:
        target = self._lexical(path)
        try:
            return await self.sandbox.files.read(
                str(target), max_bytes=max_bytes, user=_name(user), within=self._within(False)
            )
        except InstaVMError as error:
            if error.code in ("file_not_found", "file_not_a_directory"):
                raise WorkspaceReadNotFoundError(path=path, cause=error) from error
            _raise_escape(error, path)
            raise WorkspaceArchiveReadError(path=target, context=_context(error), cause=error) from error

    async def write(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        target = self._lexical(path, for_write=True)

        async def chunks() -> Any:
            while chunk := data.read(_READ_CHUNK_BYTES):
                if not isinstance(chunk, (bytes, bytearray)):
                    raise WorkspaceWriteTypeError(path=target, actual_type=type(chunk).__name__)
                yield bytes(chunk)

        try:
            await self.sandbox.files.write(
                str(target), chunks(), parents=True, user=_name(user), within=self._within(True)
            )
        except InstaVMError as error:
            _raise_escape(error, path)
            raise WorkspaceArchiveWriteError(path=target, context=_context(error), cause=error) from error

    async def _validate_path_access(self, path: Path | str, *, for_write: bool = False) -> Path:
        """Also asks the guest, which resolves links: what the SDK then does by command stays inside."""
        target = self._lexical(path, for_write=for_write)
        try:
            await self.sandbox.files.stat(str(target), follow=True, within=self._within(for_write))
        except InstaVMError as error:
            _raise_escape(error, path)
            # A path that is missing or unreadable is the following command's own error to report.
        return target

    async def _normalize_path_for_io(self, path: Path | str) -> Path:
        """The name of `_validate_path_access` in openai-agents 0.14."""
        return await self._validate_path_access(path, for_write=True)

    def _lexical(self, path: Path | str, *, for_write: bool = False) -> Path:
        if _KNOWS_FOR_WRITE:
            return self.normalize_path(path, for_write=for_write)
        return self.normalize_path(path)

    def _within(self, for_write: bool) -> list[str]:
        grants = getattr(self.state.manifest, "extra_path_grants", ())
        usable = [str(grant.path) for grant in grants if not (for_write and grant.read_only)]
        return [str(self.state.manifest.root), *usable]

    async def persist_workspace(self) -> io.IOBase:
        """A reference to a snapshot of the whole sandbox; or, when the manifest has something ephemeral, which a
        snapshot could not leave out, or the server can take none, the workspace as a tar."""
        root = str(self.state.manifest.root)
        exclude = sorted(path.as_posix() for path in self._persist_workspace_skip_relpaths())
        if not exclude:
            try:
                return io.BytesIO(snapshot_reference((await self.sandbox.snapshot(run_snapshot_name())).id))
            except InstaVMError as error:
                _log.warning(
                    "no snapshot of sandbox %s, so its workspace goes out as a tar: %s", self.sandbox.id, error
                )
        archive = io.BytesIO()
        try:
            async for chunk in self.sandbox.files.pack_tar(root, exclude=exclude):
                archive.write(chunk)
        except InstaVMError as error:
            raise WorkspaceArchiveReadError(path=Path(root), context=_context(error), cause=error) from error
        archive.seek(0)
        return archive

    async def hydrate_workspace(self, data: io.IOBase) -> None:
        root = str(self.state.manifest.root)
        archive = bytes(data.read())
        try:
            snapshot_id = referenced_snapshot(archive)
            if snapshot_id is not None:
                await self._restore(snapshot_id)
            else:
                await self.sandbox.files.unpack_tar(root, archive, within=[root])
        except ValueError as error:
            raise WorkspaceArchiveWriteError(path=Path(root), context={"reason": str(error)}, cause=error) from error
        except InstaVMError as error:
            raise WorkspaceArchiveWriteError(path=Path(root), context=_context(error), cause=error) from error

    async def _restore(self, snapshot_id: str) -> None:
        """Another sandbox, which begins in the snapshot, takes the place of this one."""
        # The one that is ended at the end of the session is then the new one.
        async with self._ending:
            restored = await self._make_sandbox(self._client, self.state.options, snapshot_id)
            try:
                await self._processes.close()
                try:
                    await self.sandbox.delete()
                except InstaVMError as error:
                    if error.status not in (404, 410):
                        raise
            except BaseException:
                with suppress(InstaVMError):
                    await restored.delete()
                raise
            self.sandbox = restored
            self._processes = Processes(restored)
            self.state.sandbox_id = restored.id

    # --------------------------------------------------------------------------------------------- network

    def _assert_exposed_port_configured(self, port: int) -> None:
        # Those that are declared are the only ones, when some are.
        if self.state.exposed_ports:
            super()._assert_exposed_port_configured(port)

    async def _resolve_exposed_port(self, port: int) -> ExposedPortEndpoint:
        return await resolve_exposed_port(self._client, self.sandbox, self.state, port)

    async def set_egress_policy(self, policy: EgressPolicy) -> None:
        """Holds from now on, also for the sandbox that takes the place of this one when it is gone."""
        await self.sandbox.set_egress_policy(policy)
        self.state.options = self.state.options.with_egress_policy(policy)

    async def get_egress_policy(self) -> EgressPolicy:
        return await self.sandbox.get_egress_policy()


def _name(user: str | User | None) -> str | None:
    return user.name if isinstance(user, User) else user


def _context(error: InstaVMError) -> dict[str, object]:
    return {"backend": "instavm", "code": error.code, "detail": error.message}


def _raise_escape(error: InstaVMError, path: Path | str) -> None:
    if error.code == "path_escape":
        raise InvalidManifestPathError(rel=path, reason="escape_root", cause=error) from error
