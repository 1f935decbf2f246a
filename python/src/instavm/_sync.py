"""The blocking face: the asynchronous client, run on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from ._audit import AuditEvent, AuditPage
from ._client import AsyncInstaVM, AsyncSandbox, RunResult, SandboxInfo, SnapshotInfo
from ._credit import Charge, CreditBalance, CreditPeriod, Rates, UsageByDay
from ._domains import Domain, DomainHealth
from ._egress import EgressGap, EgressLogEntry, EgressPolicy, EgressTest
from ._exec import AsyncExec, Command, ExecResult, Output
from ._files import ChangeEvent, FileInfo
from ._keys import ApiKey, NewApiKey
from ._pty import PtyInfo
from ._pty_connection import PtyExit
from ._pty_viewer import AsyncPty
from ._quotas import AccountQuotas
from ._shares import MOST_OPEN, PreviewAuthority, Share, ShareLink
from .errors import InstaVMError

T = TypeVar("T")


class _Loop:
    """An event loop in a daemon thread; calls from any thread are run there."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="instavm", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            coroutine.close()
            raise InstaVMError("client_closed", "this client has been closed", hint="Make another one.")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C interrupts the wait only: what goes on in the loop would take the next piece of output with it.
            future.cancel()
            raise

    @property
    def is_closed(self) -> bool:
        return self._loop.is_closed()

    def iterate(self, iterator: AsyncIterator[T]) -> Iterator[T]:
        """Steps an asynchronous iterator; breaking off closes it."""

        async def step() -> tuple[bool, Any]:
            try:
                return True, await anext(iterator)
            except StopAsyncIteration:
                return False, None

        try:
            while True:
                more, value = self.run(step())
                if not more:
                    return
                yield value
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                self.run(close())

    def close(self) -> None:
        """Idempotent. What is still under way is cancelled."""
        if self._loop.is_closed():
            return

        async def cancel_all() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self.run(cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Exec:
    """A running command; iterate over it for its output. At the end of a `with` block what still runs is killed."""

    def __init__(self, loop: _Loop, inner: AsyncExec) -> None:
        self._loop = loop
        self._inner = inner

    def __iter__(self) -> Iterator[Output]:
        return self._loop.iterate(aiter(self._inner))

    @property
    def result(self) -> ExecResult | None:
        return self._inner.result

    def wait(self) -> ExecResult:
        return self._loop.run(self._inner.wait())

    def write_stdin(self, data: bytes | str) -> None:
        self._loop.run(self._inner.write_stdin(data))

    def close_stdin(self) -> None:
        self._loop.run(self._inner.close_stdin())

    def kill(self, signal: str = "SIGTERM") -> None:
        self._loop.run(self._inner.kill(signal))

    def close(self) -> None:
        """Drops the connection; a command still running is killed."""
        self._loop.run(self._inner.aclose())

    def __enter__(self) -> Exec:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Files:
    """As `AsyncFiles`, whose methods have the full descriptions of every option."""

    def __init__(self, loop: _Loop, sandbox: AsyncSandbox) -> None:
        self._loop = loop
        self._inner = sandbox.files

    def read(self, path: str, **options: Any) -> bytes:
        return self._loop.run(self._inner.read(path, **options))

    def read_stream(self, path: str, **options: Any) -> Iterator[bytes]:
        return self._loop.iterate(self._inner.read_stream(path, **options))

    def write(self, path: str, contents: bytes | str, **options: Any) -> FileInfo:
        return self._loop.run(self._inner.write(path, contents, **options))

    def stat(self, path: str, **options: Any) -> FileInfo:
        return self._loop.run(self._inner.stat(path, **options))

    def list(self, path: str, **options: Any) -> list[FileInfo]:
        return self._loop.run(self._inner.list(path, **options))

    def mkdir(self, path: str, **options: Any) -> FileInfo:
        return self._loop.run(self._inner.mkdir(path, **options))

    def remove(self, path: str, **options: Any) -> None:
        self._loop.run(self._inner.remove(path, **options))

    def rename(self, source: str, target: str, **options: Any) -> FileInfo:
        return self._loop.run(self._inner.rename(source, target, **options))

    def watch(self, path: str, **options: Any) -> Iterator[ChangeEvent]:
        return self._loop.iterate(self._inner.watch(path, **options))

    def pack_tar(self, path: str, **options: Any) -> Iterator[bytes]:
        return self._loop.iterate(self._inner.pack_tar(path, **options))

    def unpack_tar(self, path: str, archive: bytes, **options: Any) -> int:
        return self._loop.run(self._inner.unpack_tar(path, archive, **options))


class Pty:
    """A viewer of a terminal, as `AsyncPty`; iterate over it for the output. At the end of a `with` it detaches."""

    def __init__(self, loop: _Loop, inner: AsyncPty) -> None:
        self._loop = loop
        self._inner = inner
        self.id = inner.id

    def __iter__(self) -> Iterator[bytes]:
        return self._loop.iterate(aiter(self._inner))

    @property
    def offset(self) -> int:
        return self._inner.offset

    @property
    def exit(self) -> PtyExit | None:
        return self._inner.exit

    def wait(self) -> PtyExit:
        return self._loop.run(self._inner.wait())

    def write(self, data: bytes | str) -> None:
        self._loop.run(self._inner.write(data))

    def resize(self, cols: int, rows: int) -> None:
        self._loop.run(self._inner.resize(cols, rows))

    def signal(self, signal: str) -> None:
        self._loop.run(self._inner.signal(signal))

    def kill(self) -> None:
        self._loop.run(self._inner.kill())

    def detach(self) -> None:
        self._loop.run(self._inner.detach())

    def __enter__(self) -> Pty:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()


class Ptys:
    """As `AsyncPtys`, whose methods have the full descriptions of every option."""

    def __init__(self, loop: _Loop, sandbox: AsyncSandbox) -> None:
        self._loop = loop
        self._inner = sandbox.pty

    def create(self, **options: Any) -> Pty:
        return Pty(self._loop, self._loop.run(self._inner.create(**options)))

    def attach(self, id: str, **options: Any) -> Pty:
        return Pty(self._loop, self._loop.run(self._inner.attach(id, **options)))

    def list(self) -> list[PtyInfo]:
        return self._loop.run(self._inner.list())

    def get(self, id: str) -> PtyInfo:
        return self._loop.run(self._inner.get(id))

    def resize(self, id: str, cols: int, rows: int) -> None:
        self._loop.run(self._inner.resize(id, cols, rows))

    def signal(self, id: str, signal: str, *, session: bool = False) -> None:
        self._loop.run(self._inner.signal(id, signal, session=session))

    def kill(self, id: str) -> None:
        self._loop.run(self._inner.kill(id))

    def token(self, id: str, *, read_only: bool = False) -> str:
        return self._loop.run(self._inner.token(id, read_only=read_only))


class Sandbox:
    """A microVM's worth of computer, by its id."""

    def __init__(self, loop: _Loop, inner: AsyncSandbox) -> None:
        self._loop = loop
        self._inner = inner
        self.id = inner.id
        self.files = Files(loop, inner)
        self.pty = Ptys(loop, inner)

    def exec(
        self,
        command: Command,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        timeout_ms: int | None = None,
        stdin: bool = False,
    ) -> Exec:
        inner = self._inner.exec(command, cwd=cwd, env=env, user=user, timeout_ms=timeout_ms, stdin=stdin)
        return Exec(self._loop, self._loop.run(inner))

    def run(
        self,
        command: Command,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        timeout_ms: int | None = None,
        input: bytes | str | None = None,
    ) -> RunResult:
        """Runs a command to its end. A non-zero exit code is a result, not an error."""
        return self._loop.run(self._inner.run(command, cwd=cwd, env=env, user=user, timeout_ms=timeout_ms, input=input))

    def info(self) -> SandboxInfo:
        return self._loop.run(self._inner.info())

    def stats(self) -> dict[str, int]:
        return self._loop.run(self._inner.stats())

    def share(self, port: int, *, is_public: bool | None = None, rewrite_host: bool | None = None) -> Share:
        """As `AsyncSandbox.share`."""
        return self._loop.run(self._inner.share(port, is_public=is_public, rewrite_host=rewrite_host))

    def set_egress_policy(self, policy: EgressPolicy) -> None:
        self._loop.run(self._inner.set_egress_policy(policy))

    def get_egress_policy(self) -> EgressPolicy:
        return self._loop.run(self._inner.get_egress_policy())

    def test_egress(self, destination: str) -> EgressTest:
        """What the policy says about `name:port`, without connecting."""
        return self._loop.run(self._inner.test_egress(destination))

    def egress_log(self, **options: Any) -> Sequence[EgressLogEntry]:
        """As `AsyncSandbox.egress_log`, which has the full description of every option."""
        return self._loop.run(self._inner.egress_log(**options))

    def follow_egress_log(self, **options: Any) -> Iterator[EgressLogEntry | EgressGap]:
        """What it tries to reach, as it happens, until the iteration is ended."""
        return self._loop.iterate(self._inner.follow_egress_log(**options))

    def suspend(self) -> None:
        self._loop.run(self._inner.suspend())

    def resume(self) -> None:
        self._loop.run(self._inner.resume())

    def snapshot(self, name: str | None = None) -> SnapshotInfo:
        return self._loop.run(self._inner.snapshot(name))

    def fork(self) -> Sandbox:
        return Sandbox(self._loop, self._loop.run(self._inner.fork()))

    def forks(self, count: int) -> list[Sandbox]:
        return [Sandbox(self._loop, inner) for inner in self._loop.run(self._inner.forks(count))]

    def delete(self) -> None:
        """Ends the sandbox; success when it has ended already."""
        self._loop.run(self._inner.delete())

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.delete()


class Sandboxes:
    def __init__(self, loop: _Loop, client: AsyncInstaVM) -> None:
        self._loop = loop
        self._inner = client.sandboxes

    def create(self, **options: Any) -> Sandbox:
        """As `AsyncSandboxes.create`, which has the full description of every option."""
        return Sandbox(self._loop, self._loop.run(self._inner.create(**options)))

    def get(self, sandbox_id: str) -> Sandbox:
        return Sandbox(self._loop, self._loop.run(self._inner.get(sandbox_id)))

    def list(self, *, limit: int | None = None, before: str | None = None, ended: bool = True) -> Sequence[SandboxInfo]:
        return self._loop.run(self._inner.list(limit=limit, before=before, ended=ended))


class Snapshots:
    """The account's snapshots."""

    def __init__(self, loop: _Loop, client: AsyncInstaVM) -> None:
        self._loop = loop
        self._inner = client.snapshots

    def list(self) -> Sequence[SnapshotInfo]:
        return self._loop.run(self._inner.list())

    def get(self, snapshot_id: str) -> SnapshotInfo:
        return self._loop.run(self._inner.get(snapshot_id))

    def delete(self, snapshot_id: str) -> None:
        self._loop.run(self._inner.delete(snapshot_id))


class Shares:
    """As `AsyncShares`. `Sandbox.share` makes them."""

    def __init__(self, loop: _Loop, client: AsyncInstaVM) -> None:
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

    def __init__(self, loop: _Loop, client: AsyncInstaVM) -> None:
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


class ApiKeys:
    """As `AsyncApiKeys`."""

    def __init__(self, loop: _Loop, client: AsyncInstaVM) -> None:
        self._loop = loop
        self._inner = client.keys

    def create(self, name: str | None = None, **options: Any) -> NewApiKey:
        return self._loop.run(self._inner.create(name, **options))

    def list(self) -> Sequence[ApiKey]:
        return self._loop.run(self._inner.list())

    def get(self, key_id: int) -> ApiKey:
        return self._loop.run(self._inner.get(key_id))

    def update(self, key_id: int, *, name: str | None = None, description: str | None = None) -> ApiKey:
        return self._loop.run(self._inner.update(key_id, name=name, description=description))

    def expire(self, key_id: int, at: datetime | None) -> ApiKey:
        return self._loop.run(self._inner.expire(key_id, at))

    def rotate(self, key_id: int, *, grace_seconds: int = 0) -> NewApiKey:
        return self._loop.run(self._inner.rotate(key_id, grace_seconds=grace_seconds))

    def revoke(self, key_id: int) -> None:
        self._loop.run(self._inner.revoke(key_id))


class Credit:
    """As `AsyncCredit`."""

    def __init__(self, loop: _Loop, client: AsyncInstaVM) -> None:
        self._loop = loop
        self._inner = client.credit

    def balance(self, period: CreditPeriod = "current_month") -> CreditBalance:
        return self._loop.run(self._inner.balance(period))

    def usage(self, days: int = 30) -> UsageByDay:
        return self._loop.run(self._inner.usage(days))

    def charges(self, period: CreditPeriod = "current_month", *, limit: int = 100) -> list[Charge]:
        return self._loop.run(self._inner.charges(period, limit=limit))

    def rates(self) -> Rates:
        return self._loop.run(self._inner.rates())

    def grant(self, dollars: float, **options: Any) -> float:
        return self._loop.run(self._inner.grant(dollars, **options))


class Audit:
    """As `AsyncAudit`, which has the full description of every option."""

    def __init__(self, loop: _Loop, client: AsyncInstaVM) -> None:
        self._loop = loop
        self._inner = client.audit

    def catalog(self) -> dict[str, list[str]]:
        return self._loop.run(self._inner.catalog())

    def events(self, **options: Any) -> Iterator[AuditEvent]:
        return self._loop.iterate(self._inner.events(**options))

    def page(self, **options: Any) -> AuditPage:
        return self._loop.run(self._inner.page(**options))

    def get(self, event_id: str) -> AuditEvent:
        return self._loop.run(self._inner.get(event_id))

    def follow(self, **options: Any) -> Iterator[AuditEvent]:
        return self._loop.iterate(self._inner.follow(**options))


class Quotas:
    """As `AsyncQuotas`."""

    def __init__(self, loop: _Loop, client: AsyncInstaVM) -> None:
        self._loop = loop
        self._inner = client.quotas

    def get(self) -> AccountQuotas:
        return self._loop.run(self._inner.get())

    def set(self, account: str, **changes: int | None) -> AccountQuotas:
        return self._loop.run(self._inner.set(account, **changes))


class InstaVM:
    """One server, one key. Close it, or use it as a context manager."""

    def __init__(self, api_key: str | None = None, base_url: str | None = None) -> None:
        self._inner = AsyncInstaVM(api_key, base_url)
        self._loop = _Loop()
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
