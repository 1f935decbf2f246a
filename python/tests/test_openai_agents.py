"""The provider, driven as the Agents SDK drives it, with a model that follows a script."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from agents import Runner
from agents.run import RunConfig
from agents.sandbox import Manifest, SandboxAgent, SandboxRunConfig
from agents.sandbox.entries import (
    Dir,
    File,
    InContainerMountStrategy,
    LocalDir,
    LocalFile,
    RcloneMountPattern,
    S3Mount,
)
from agents.sandbox.errors import (
    ExecTimeoutError,
    ExecTransportError,
    MountConfigError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
    WorkspaceStartError,
)
from agents.sandbox.snapshot import LocalSnapshotSpec
from agents.sandbox.types import Group, Permissions, User
from daemon import Daemon
from openai.types.responses import ResponseCustomToolCall
from scripted_model import ScriptedModel, call, say
from turns import to_its_end

from instavm import AsyncInstaVM
from instavm.integrations.openai_agents import InstaVMSandboxClient, InstaVMSandboxClientOptions


async def test_a_manifest_is_there_when_the_session_starts(session: Any) -> None:
    assert (await session.read(Path("d/b.txt"))).read() == b"beta"
    listing = await session.exec("ls")
    assert listing.stdout.split() == [b"a.txt", b"d", b"out"]


async def test_the_manifests_environment_stands_over_the_options(session: Any) -> None:
    assert (await session.exec("printf $MODE")).stdout == b"manifest"


async def test_commands_tell_their_code_and_keep_bytes(session: Any) -> None:
    result = await session.exec("printf '\\377'; exit 3")
    assert (result.stdout, result.exit_code) == (b"\xff", 3)
    with pytest.raises(ExecTimeoutError):
        await session.exec("sleep 30", timeout=0.5)


async def test_files_are_written_and_missing_ones_are_named(session: Any) -> None:
    await session.write(Path("new/deep.bin"), io.BytesIO(b"\x00" * 300_000))
    assert len((await session.read(Path("new/deep.bin"))).read()) == 300_000
    with pytest.raises(WorkspaceReadNotFoundError):
        await session.read(Path("missing"))


async def test_a_link_out_of_the_workspace_is_not_followed(session: Any) -> None:
    await session.exec("ln -s /etc/passwd leak")
    with pytest.raises(Exception, match="escape"):
        await session.read(Path("leak"))


async def test_a_user_of_the_sandbox_can_be_acted_as(session: Any) -> None:
    assert (await session.exec("useradd -m ada && install -d -o ada shared")).exit_code == 0
    assert (await session.exec("id -un", user="ada")).stdout == b"ada\n"
    await session.write(Path("shared/mine"), io.BytesIO(b"x"), user="ada")
    assert (await session.exec("stat -c %U shared/mine")).stdout == b"ada\n"


async def test_the_workspace_goes_out_and_in(session: Any) -> None:
    archive = await session.persist_workspace()
    await session.exec("rm -rf a.txt d && mkdir restored")
    await session.hydrate_workspace(archive)
    assert (await session.read(Path("a.txt"))).read() == b"alpha"


async def test_a_state_resumes_the_living_sandbox_and_replaces_a_lost_one(
    provider: InstaVMSandboxClient, daemon: Daemon
) -> None:
    session = await provider.create(manifest=Manifest(entries={"a.txt": File(content=b"alpha")}), options=None)
    await session.start()
    await session.exec("echo kept > kept.txt")
    stored = json.dumps(provider.serialize_session_state(session._inner.state))
    assert daemon.api_key not in stored
    state = provider.deserialize_session_state(json.loads(stored))
    again = await provider.resume(state)
    await again.start()
    assert (await again.exec("cat kept.txt")).stdout == b"kept\n"
    async with AsyncInstaVM(daemon.api_key, daemon.base_url) as client:
        await client.sandboxes.attach(state.sandbox_id).delete()  # type: ignore[attr-defined]
    fresh = await provider.resume(provider.deserialize_session_state(json.loads(stored)))
    await fresh.start()
    assert (await fresh.exec("ls")).stdout == b"a.txt\n"
    await provider.delete(fresh)
    await provider.delete(fresh)


async def test_local_files_reach_the_sandbox(provider: InstaVMSandboxClient, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/f").write_text("in tree")
    (tmp_path / "one").write_text("alone")
    manifest = Manifest(entries={"l": LocalFile(src=Path("one")), "t": LocalDir(src=Path("tree"))})
    session = await provider.create(manifest=manifest, options=None)
    async with session:
        assert (await session.exec("cat l t/f")).stdout == b"alonein tree"
    await provider.delete(session)


async def test_a_snapshot_brings_the_workspace_back_in_another_sandbox(
    provider: InstaVMSandboxClient, tmp_path: Path
) -> None:
    manifest = Manifest(entries={"a.txt": File(content=b"alpha"), "temp": File(content=b"gone", ephemeral=True)})
    session = await provider.create(manifest=manifest, snapshot=LocalSnapshotSpec(base_path=tmp_path))
    await session.start()
    await session.exec("rm a.txt; mkdir -m 700 d; echo kept > d/kept; ln -s d/kept link; echo changed > temp")
    await session.stop()
    stored = json.dumps(provider.serialize_session_state(session._inner.state))
    await provider.delete(session)
    again = await provider.resume(provider.deserialize_session_state(json.loads(stored)))
    await again.start()
    # What is ephemeral is made anew from the manifest, everything else is as it was left.
    assert (await again.exec("ls; cat temp; stat -c ' %a' d; cat link")).stdout == b"d\nlink\ntemp\ngone 700\nkept\n"
    await provider.delete(again)


async def test_a_snapshot_of_everything_comes_back_with_its_memory(
    provider: InstaVMSandboxClient, daemon: Daemon, tmp_path: Path
) -> None:
    manifest = Manifest(entries={"a.txt": File(content=b"alpha")})
    session = await provider.create(manifest=manifest, snapshot=LocalSnapshotSpec(base_path=tmp_path))
    await session.start()
    await session.exec("rm a.txt; echo kept > kept; echo in memory > /dev/shm/kept; echo outside > /root/kept")
    await session.stop()
    stored = json.dumps(provider.serialize_session_state(session._inner.state))
    await provider.delete(session)
    again = await provider.resume(provider.deserialize_session_state(json.loads(stored)))
    await again.start()
    assert (await again.exec("ls; cat /dev/shm/kept /root/kept")).stdout == b"kept\nin memory\noutside\n"
    async with AsyncInstaVM(daemon.api_key, daemon.base_url) as client:
        (snapshot, *_) = await client.snapshots.list()
        assert snapshot.name.startswith("sandbox-") and snapshot.status == "ready"
        fresh = await provider.create(options=InstaVMSandboxClientOptions(snapshot_id=snapshot.id))
        await fresh.start()
        assert (await fresh.exec("cat /root/kept")).stdout == b"outside\n"
        await provider.delete(fresh)
        await client.snapshots.delete(snapshot.id)
    await provider.delete(again)


async def test_a_suspended_sandbox_wakes_with_its_terminal(provider: InstaVMSandboxClient, session: Any) -> None:
    started = await session.pty_exec_start('x=kept; read y; echo "$x $y"; exit 6', tty=True, yield_time_s=1)
    await session._inner.sandbox.suspend()
    assert await session.running() is True
    told = await session.pty_write_stdin(session_id=started.process_id, chars="woken\n", yield_time_s=20)
    told = await to_its_end(session, told)
    assert b"kept woken" in told.output and told.exit_code == 6


async def test_a_manifests_users_and_groups_own_and_are_kept_out(provider: InstaVMSandboxClient) -> None:
    ada, bob = User(name="ada"), User(name="bob")
    devs = Group(name="devs", users=[ada])
    secret = File(content=b"for devs", permissions=Permissions.from_mode(0o640), group=devs)
    manifest = Manifest(users=[ada, bob], groups=[devs], entries={"secret": secret})
    session = await provider.create(manifest=manifest)
    async with session:
        assert (await session.exec("stat -c '%a %G' secret; id -nG ada")).stdout == b"640 devs\nada devs\n"
        assert (await session.read(Path("secret"), user=ada)).read() == b"for devs"
        with pytest.raises(WorkspaceArchiveReadError):
            await session.read(Path("secret"), user=bob)
        with pytest.raises(WorkspaceArchiveWriteError):
            await session.write(Path("new"), io.BytesIO(b""), user=bob)
    await provider.delete(session)


async def test_an_ended_sandbox_is_not_running_and_is_not_replaced_in_silence(
    provider: InstaVMSandboxClient, daemon: Daemon
) -> None:
    session = await provider.create()
    await session.start()
    async with AsyncInstaVM(daemon.api_key, daemon.base_url) as client:
        await client.sandboxes.attach(session._inner.state.sandbox_id).delete()
    assert await session.running() is False
    with pytest.raises(ExecTransportError):
        await session.exec("true")
    with pytest.raises(WorkspaceStartError) as refused:
        await session.start()
    assert "stopped" in str(refused.value.context)
    await provider.delete(session)
    assert await session.running() is False


async def test_an_option_that_is_not_known_and_a_mount_are_refused_before_a_sandbox_is_made(
    provider: InstaVMSandboxClient, daemon: Daemon
) -> None:
    with pytest.raises(ValueError, match="memory"):
        InstaVMSandboxClientOptions(memory=512)  # type: ignore[call-arg]
    mount = S3Mount(bucket="b", mount_strategy=InContainerMountStrategy(pattern=RcloneMountPattern()))
    async with AsyncInstaVM(daemon.api_key, daemon.base_url) as client:
        before = len(await client.sandboxes.list())
        with pytest.raises(MountConfigError, match="d/bucket: mounts are not available"):
            await provider.create(manifest=Manifest(entries={"d": Dir(children={"bucket": mount})}))
        assert len(await client.sandboxes.list()) == before


async def test_an_agent_runs_commands_patches_files_and_looks_at_images(provider: InstaVMSandboxClient) -> None:
    def patch(text: str) -> ResponseCustomToolCall:
        return ResponseCustomToolCall(type="custom_tool_call", id="p", call_id="p", name="apply_patch", input=text)

    update = "*** Begin Patch\n*** Update File: a.txt\n@@\n-alpha\n+omega\n*** End Patch\n"
    draw = f"echo {base64.b64encode(png()).decode()} | base64 -d > dot.png; echo two; exit 2"
    seen: list[Any] = []

    def finish(outputs: list[Any]) -> list[Any]:
        seen.extend(outputs)
        return [say(f"done: {len(outputs)} tools answered")]

    model = ScriptedModel(
        [
            lambda _: [call("exec_command", "c1", cmd="cat a.txt"), call("exec_command", "c2", cmd=draw)],
            lambda _: [patch(update)],
            lambda _: [call("exec_command", "c3", cmd="cat a.txt"), call("view_image", "i1", path="dot.png")],
            finish,
        ]
    )
    agent = SandboxAgent(
        name="A",
        model=model,
        instructions="Follow the script.",
        # The SDK cannot store a manifest whose file contents are not text, so the image is made by a command.
        default_manifest=Manifest(entries={"a.txt": File(content=b"alpha\n")}),
    )
    config = RunConfig(sandbox=SandboxRunConfig(client=provider))
    result = await Runner.run(agent, "go", run_config=config)
    assert result.final_output == "done: 5 tools answered"
    texts = {item["call_id"]: json.dumps(item["output"]) for item in seen}
    assert "alpha" in texts["c1"] and "exited with code 2" in texts["c2"]
    assert "omega" in texts["c3"] and "data:image/png;base64" in texts["i1"]


def png() -> bytes:
    """One black pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")
