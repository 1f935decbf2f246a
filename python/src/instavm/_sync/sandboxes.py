"""Sandboxes and snapshots, for callers that block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .._client import AsyncInstaVM, AsyncSandbox, RunResult, SandboxInfo, SnapshotInfo
from .._egress import EgressGap, EgressLogEntry, EgressPolicy, EgressTest
from .._exec import Command
from .._shares import Share
from .exec import Exec
from .files import Files
from .loop import Loop
from .pty import Ptys


class Sandbox:
    """A microVM's worth of computer, by its id."""

    def __init__(self, loop: Loop, inner: AsyncSandbox) -> None:
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
    def __init__(self, loop: Loop, client: AsyncInstaVM) -> None:
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

    def __init__(self, loop: Loop, client: AsyncInstaVM) -> None:
        self._loop = loop
        self._inner = client.snapshots

    def list(self) -> Sequence[SnapshotInfo]:
        return self._loop.run(self._inner.list())

    def get(self, snapshot_id: str) -> SnapshotInfo:
        return self._loop.run(self._inner.get(snapshot_id))

    def delete(self, snapshot_id: str) -> None:
        self._loop.run(self._inner.delete(snapshot_id))
