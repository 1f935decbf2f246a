"""The client: one server, one key, its sandboxes. Asynchronous; `_sync` has the blocking face of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ._audit import AsyncAudit
from ._credit import AsyncCredit
from ._domains import AsyncDomains
from ._egress import AsyncEgress, EgressGap, EgressLogEntry, EgressPolicy, EgressTest, Verdict, wire_policy
from ._exec import AsyncExec, Command, ExecResult
from ._files import AsyncFiles
from ._http import AsyncHttp, instant, path_segment
from ._keys import AsyncApiKeys
from ._pty import AsyncPtys
from ._quotas import AsyncQuotas
from ._shares import AsyncShares, Share, open_share
from ._unclaimed import made
from .errors import InstaVMError

DEFAULT_BASE_URL = "http://127.0.0.1:8787"


@dataclass(frozen=True)
class SandboxInfo:
    id: str
    #: "creating", "running", "suspending", "suspended", "resuming", "stopping", "stopped" or "failed".
    state: str
    state_reason: str | None
    #: The present or last microVM.
    incarnation_id: str | None
    created_at: datetime
    expires_at: datetime | None
    memory_mb: int
    vcpu_count: int
    metadata: dict[str, Any]


@dataclass(frozen=True)
class SnapshotInfo:
    id: str
    name: str
    #: "building", "ready" or "failed"; only one that is ready can be begun in.
    status: str
    #: Why it failed.
    error: str | None
    memory_mb: int
    vcpu_count: int
    #: What it occupies on the server's disk.
    size_bytes: int
    created_at: datetime


@dataclass(frozen=True)
class RunResult(ExecResult):
    stdout: bytes
    stderr: bytes

    @property
    def stdout_text(self) -> str:
        return self.stdout.decode("utf-8", "replace")

    @property
    def stderr_text(self) -> str:
        return self.stderr.decode("utf-8", "replace")


class AsyncSandbox:
    """A microVM's worth of computer, by its id."""

    def __init__(self, http: AsyncHttp, sandbox_id: str) -> None:
        self._http = http
        self._path = f"/v2/sandboxes/{path_segment(sandbox_id)}"
        self.id = sandbox_id
        self.files = AsyncFiles(http, sandbox_id)
        #: Terminals.
        self.pty = AsyncPtys(http, sandbox_id)
        self._egress = AsyncEgress(http, sandbox_id)

    async def exec(
        self,
        command: Command,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        timeout_ms: int | None = None,
        stdin: bool = False,
    ) -> AsyncExec:
        """Starts a command; its output is the caller's to read."""
        return await AsyncExec.start(
            self._http, self.id, command, cwd=cwd, env=env, user=user, timeout_ms=timeout_ms, stdin=stdin
        )

    async def run(
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
        exec_ = await self.exec(command, cwd=cwd, env=env, user=user, timeout_ms=timeout_ms, stdin=input is not None)
        output: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        try:
            if input is not None:
                # A command that has ended does not need it; a connection that was lost is told of by its output.
                with suppress(InstaVMError):
                    await exec_.write_stdin(input)
                    await exec_.close_stdin()
            async for chunk in exec_:
                output[chunk.stream].append(chunk.data)
        finally:
            await exec_.aclose()
        assert exec_.result is not None
        return RunResult(**exec_.result.__dict__, stdout=b"".join(output["stdout"]), stderr=b"".join(output["stderr"]))

    async def info(self) -> SandboxInfo:
        return _sandbox_info(await self._http.json("GET", self._path))

    async def stats(self) -> dict[str, int]:
        return dict(await self._http.json("GET", f"{self._path}/stats"))

    async def set_egress_policy(self, policy: EgressPolicy) -> None:
        """Holds from now on; connections that it forbids are cut."""
        await self._egress.set_policy(policy)

    async def get_egress_policy(self) -> EgressPolicy:
        """The one in force, also when nobody set one."""
        return await self._egress.get_policy()

    async def test_egress(self, destination: str) -> EgressTest:
        """What the policy says about `name:port`, or `[address]:port` for IPv6, without connecting."""
        return await self._egress.test(destination)

    async def egress_log(
        self,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int | None = None,
        verdict: Verdict | None = None,
        host: str | None = None,
    ) -> list[EgressLogEntry]:
        """What it tried to reach, newest last: the newest 100, or `limit`, entries, or those after or before an id.

        `host` means that name and every name below it.
        """
        query = {"after": after, "before": before, "limit": limit, "verdict": verdict, "host": host}
        return await self._egress.log(query)

    def follow_egress_log(
        self, *, after: int | None = None, verdict: Verdict | None = None, host: str | None = None
    ) -> AsyncIterator[EgressLogEntry | EgressGap]:
        """What it tries to reach, as it happens, from `after` or from now on, until the iteration is ended."""
        return self._egress.follow({"after": after, "verdict": verdict, "host": host})

    async def share(self, port: int, *, is_public: bool | None = None, rewrite_host: bool | None = None) -> Share:
        """The HTTPS address of a port, the same one each time until it is revoked; nothing need listen there yet.

        A new share is private unless it is said to be public; one that is there stays as it is in what is left out.
        With `rewrite_host` the program sees `localhost:<port>` as Host, and not the name that visitors use.
        """
        return await open_share(self._http, self.id, port, is_public, rewrite_host)

    async def suspend(self) -> None:
        """Keeps memory, processes, terminals and disk, and frees the host of it. Whatever uses it wakes it."""
        await self._http.json("POST", f"{self._path}/suspend")

    async def resume(self) -> None:
        """Goes on where it was suspended; success when it runs."""
        await self._http.json("POST", f"{self._path}/resume")

    async def snapshot(self, name: str | None = None) -> SnapshotInfo:
        """Takes a snapshot, from which any number of sandboxes can begin; this one stands still for that time."""
        body = {} if name is None else {"name": name}
        return _snapshot_info(await self._http.json("POST", f"{self._path}/snapshots", json=body))

    async def fork(self) -> AsyncSandbox:
        """A second sandbox that begins where this one is now."""
        return (await self.forks(1))[0]

    async def forks(self, count: int) -> list[AsyncSandbox]:
        """As many as asked for, up to 32, all from the same moment; none when one of them cannot be made."""

        async def make() -> list[AsyncSandbox]:
            answer = await self._http.json("POST", f"{self._path}/fork", json={"count": count})
            return [AsyncSandbox(self._http, sandbox["id"]) for sandbox in answer["sandboxes"]]

        async def end(forks: list[AsyncSandbox]) -> None:
            await asyncio.gather(*(fork.delete() for fork in forks))

        return await made(make(), end)

    async def delete(self) -> None:
        """Ends the sandbox; success when it has ended already."""
        await self._http.json("DELETE", self._path)

    async def __aenter__(self) -> AsyncSandbox:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.delete()


class AsyncSandboxes:
    def __init__(self, http: AsyncHttp) -> None:
        self._http = http

    async def create(
        self,
        *,
        memory_mb: int | None = None,
        vcpu_count: int | None = None,
        ttl_seconds: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        egress: EgressPolicy | None = None,
        snapshot_id: str | None = None,
        auto_suspend: bool | None = None,
        auto_resume: bool | None = None,
        idle_suspend_seconds: int | None = None,
        snapshot_on_expiry: str | None = None,
    ) -> AsyncSandbox:
        """Returns when the sandbox runs. `ttl_seconds` is 20 to 86400, by default 300.

        With `snapshot_id` it begins in a snapshot: memory, processes, terminals and disk; the size, and what else is
        not given, are the snapshot's. At the end of its lifetime it is suspended with `auto_suspend`, or kept in a
        snapshot under the name `snapshot_on_expiry`, or just ended. It is suspended as well when no command,
        viewer of a terminal or file transfer used it for `idle_suspend_seconds`. `egress` holds from the first packet;
        without it the policy is the snapshot's, else the server's default.
        """
        fields = {
            "memory_mb": memory_mb,
            "vcpu_count": vcpu_count,
            "ttl_seconds": ttl_seconds,
            "metadata": metadata,
            "env": env,
            "egress_policy": None if egress is None else wire_policy(egress),
            "snapshot_id": snapshot_id,
            "auto_suspend": auto_suspend,
            "auto_resume": auto_resume,
            "idle_suspend_seconds": idle_suspend_seconds,
            "snapshot_on_expiry": snapshot_on_expiry,
        }
        body = {name: value for name, value in fields.items() if value is not None}

        async def make() -> AsyncSandbox:
            return AsyncSandbox(self._http, (await self._http.json("POST", "/v2/sandboxes", json=body))["id"])

        return await made(make(), AsyncSandbox.delete)

    async def get(self, sandbox_id: str) -> AsyncSandbox:
        sandbox = self.attach(sandbox_id)
        await sandbox.info()
        return sandbox

    def attach(self, sandbox_id: str) -> AsyncSandbox:
        """A handle without asking the server."""
        return AsyncSandbox(self._http, sandbox_id)

    async def list(
        self, *, limit: int | None = None, before: str | None = None, ended: bool = True
    ) -> list[SandboxInfo]:
        """Newest first, 1000 unless `limit` says fewer; without those that have ended when `ended` is false.

        `before` is the id of a sandbox: those that come after it.
        """
        answer = await self._http.json(
            "GET", "/v2/sandboxes", query={"limit": limit, "before": before, "ended": None if ended else "false"}
        )
        return [_sandbox_info(sandbox) for sandbox in answer["sandboxes"]]


class AsyncSnapshots:
    """The account's snapshots."""

    def __init__(self, http: AsyncHttp) -> None:
        self._http = http

    async def list(self) -> list[SnapshotInfo]:
        """Newest first."""
        return [_snapshot_info(one) for one in await self._http.json("GET", "/v1/snapshots")]

    async def get(self, snapshot_id: str) -> SnapshotInfo:
        return _snapshot_info(await self._http.json("GET", f"/v1/snapshots/{path_segment(snapshot_id)}"))

    async def delete(self, snapshot_id: str) -> None:
        await self._http.json("DELETE", f"/v1/snapshots/{path_segment(snapshot_id)}")


class AsyncInstaVM:
    def __init__(self, api_key: str | None = None, base_url: str | None = None) -> None:
        key = api_key or os.environ.get("INSTAVM_API_KEY")
        if not key:
            raise InstaVMError(
                "unauthenticated",
                "no API key: pass api_key or set INSTAVM_API_KEY",
                hint="The daemon wrote one to admin.key in its data directory on its first start.",
            )
        self.base_url = base_url or os.environ.get("INSTAVM_BASE_URL") or DEFAULT_BASE_URL
        self._http = AsyncHttp(self.base_url, key)
        self.sandboxes = AsyncSandboxes(self._http)
        self.snapshots = AsyncSnapshots(self._http)
        #: Ports with an address, of all sandboxes.
        self.shares = AsyncShares(self._http)
        #: Host names of one's own for shares.
        self.domains = AsyncDomains(self._http)
        self.keys = AsyncApiKeys(self._http)
        self.credit = AsyncCredit(self._http)
        #: What was done in the account.
        self.audit = AsyncAudit(self._http)
        self.quotas = AsyncQuotas(self._http)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> AsyncInstaVM:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _snapshot_info(snapshot: dict[str, Any]) -> SnapshotInfo:
    fields = {name: snapshot[name] for name in SnapshotInfo.__dataclass_fields__ if name != "created_at"}
    return SnapshotInfo(**fields, created_at=instant(snapshot["created_at"]))


def _sandbox_info(sandbox: dict[str, Any]) -> SandboxInfo:
    return SandboxInfo(
        id=sandbox["id"],
        state=sandbox["state"],
        state_reason=sandbox["state_reason"],
        incarnation_id=sandbox["incarnation_id"],
        created_at=instant(sandbox["created_at"]),
        expires_at=None if sandbox["expires_at"] is None else instant(sandbox["expires_at"]),
        memory_mb=sandbox["memory_mb"],
        vcpu_count=sandbox["vcpu_count"],
        metadata=sandbox["metadata"],
    )
