from __future__ import annotations

import asyncio
import io
import os
import tarfile
from datetime import datetime, timedelta, timezone

import pytest
from daemon import Daemon

from instavm import AsyncInstaVM, AsyncSandbox, InstaVM, InstaVMError


async def test_a_command_gives_its_output_apart_and_its_exit_code(sandbox: AsyncSandbox) -> None:
    result = await sandbox.run("echo out; echo err >&2; exit 7")
    assert (result.stdout, result.stderr, result.exit_code) == (b"out\n", b"err\n", 7)


async def test_stdin_reaches_the_command_and_binary_output_comes_back_unchanged(sandbox: AsyncSandbox) -> None:
    data = os.urandom(200_000)
    assert (await sandbox.run(["cat"], input=data)).stdout == data


async def test_a_command_that_runs_out_of_time_is_ended(sandbox: AsyncSandbox) -> None:
    # Time enough to begin, on the busiest machine.
    result = await sandbox.run("trap '' TERM; echo begun; while true; do sleep 0.1; done", timeout_ms=6_000)
    assert (result.exit_code, result.timed_out, result.stdout) == (124, True, b"begun\n")


async def test_output_arrives_while_the_command_runs(sandbox: AsyncSandbox) -> None:
    exec_ = await sandbox.exec("echo ready; read line; echo got $line", stdin=True)
    chunks = aiter(exec_)
    assert (await anext(chunks)).data == b"ready\n"
    await exec_.write_stdin("word\n")
    assert (await anext(chunks)).data == b"got word\n"
    assert (await exec_.wait()).exit_code == 0


async def test_a_killed_command_tells_its_signal(sandbox: AsyncSandbox) -> None:
    exec_ = await sandbox.exec("sleep 60")
    await exec_.kill("SIGKILL")
    result = await exec_.wait()
    assert (result.signal, result.exit_code) == ("SIGKILL", 137)


async def test_many_commands_at_once_get_their_own_answers(sandbox: AsyncSandbox) -> None:
    results = await asyncio.gather(*(sandbox.run(["echo", str(number)]) for number in range(20)))
    assert [result.stdout_text for result in results] == [f"{number}\n" for number in range(20)]


async def test_a_missing_command_and_a_missing_user_are_named(sandbox: AsyncSandbox) -> None:
    with pytest.raises(InstaVMError) as missing:
        await sandbox.run(["no-such-program"])
    assert missing.value.code == "command_not_found"
    with pytest.raises(InstaVMError) as unknown:
        await sandbox.run(["true"], user="nobody-here")
    assert unknown.value.code == "user_unknown"


async def test_files_are_written_listed_read_and_removed(sandbox: AsyncSandbox) -> None:
    then = datetime(2020, 1, 2, 3, 4, 5, 678000, tzinfo=timezone(timedelta(hours=5)))
    await sandbox.files.write("/workspace/a/b.bin", b"\x00\xff", parents=True, mode=0o640, modified_at=then)
    info = await sandbox.files.stat("/workspace/a/b.bin")
    assert (info.kind, info.size_bytes, info.mode, info.modified_at) == ("file", 2, 0o640, then)
    assert [entry.name for entry in await sandbox.files.list("/workspace/a")] == ["b.bin"]
    await sandbox.files.rename("/workspace/a/b.bin", "/workspace/c")
    assert await sandbox.files.read("/workspace/c") == b"\x00\xff"
    await sandbox.files.remove("/workspace/c")
    with pytest.raises(InstaVMError) as gone:
        await sandbox.files.read("/workspace/c")
    assert gone.value.code == "file_not_found"


async def test_a_path_that_leads_out_through_a_link_is_refused(sandbox: AsyncSandbox) -> None:
    await sandbox.run("ln -s /etc /workspace/out")
    with pytest.raises(InstaVMError) as escape:
        await sandbox.files.write("/workspace/out/x", b"", within=["/workspace"])
    assert escape.value.code == "path_escape"


async def test_a_directory_goes_out_and_in_as_a_tar(sandbox: AsyncSandbox) -> None:
    await sandbox.run("mkdir -p /root/t/d && echo 1 > /root/t/d/f && echo 2 > /root/t/skip && chmod 700 /root/t/d/f")
    archive = b"".join([chunk async for chunk in sandbox.files.pack_tar("/root/t", exclude=["skip"])])
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert sorted(tar.getnames()) == ["d", "d/f"]
    assert await sandbox.files.unpack_tar("/root/u", archive) == 2
    assert (await sandbox.files.stat("/root/u/d/f")).mode == 0o700


async def test_an_archive_that_leads_out_is_refused(sandbox: AsyncSandbox) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../escape"))
    with pytest.raises(InstaVMError) as refused:
        await sandbox.files.unpack_tar("/root/v", buffer.getvalue())
    assert refused.value.code == "archive_invalid"


async def test_the_environment_given_at_creation_reaches_every_command(client: AsyncInstaVM) -> None:
    async with await client.sandboxes.create(env={"GREETING": "hello"}, metadata={"k": "v"}) as sandbox:
        assert (await sandbox.run('printf "$GREETING"')).stdout == b"hello"
        assert (await sandbox.info()).metadata == {"k": "v"}
        assert sandbox.id in [info.id for info in await client.sandboxes.list()]


async def test_a_deleted_sandbox_is_stopped_and_a_wrong_key_is_refused(client: AsyncInstaVM, daemon: Daemon) -> None:
    sandbox = await client.sandboxes.create()
    await sandbox.delete()
    await sandbox.delete()
    assert (await sandbox.info()).state == "stopped"
    async with AsyncInstaVM("wrong", daemon.base_url) as stranger:
        with pytest.raises(InstaVMError) as refused:
            await stranger.sandboxes.list()
    assert (refused.value.status, refused.value.code) == (401, "unauthenticated")


def test_the_blocking_client_does_the_same(daemon: Daemon) -> None:
    with InstaVM(daemon.api_key, daemon.base_url) as client, client.sandboxes.create() as sandbox:
        assert sandbox.run("echo hello").stdout_text == "hello\n"
        sandbox.files.write("/root/x", "text")
        assert b"".join(sandbox.files.read_stream("/root/x")) == b"text"
        exec_ = sandbox.exec("echo a; echo b")
        assert b"".join(chunk.data for chunk in exec_) == b"a\nb\n"
        events = sandbox.files.watch("/root")
        assert next(events).kind == "ready"
        sandbox.files.write("/root/new", "1")
        assert next(events).kind in ("created", "moved")
        events.close()


async def test_a_command_does_not_outlive_the_block_of_its_exec(sandbox: AsyncSandbox) -> None:
    async with await sandbox.exec("exec sleep 4711") as exec_:
        assert exec_.result is None
    gone = "for i in $(seq 1000); do pgrep -f '[s]leep 4711' >/dev/null || exit 0; sleep 0.1; done; exit 1"
    assert (await sandbox.run(gone)).exit_code == 0


async def test_an_id_from_outside_reaches_no_other_route(client: AsyncInstaVM) -> None:
    for id_ in ("../../v1/users/me", "x/../y", "a?b#c", "%2e%2e"):
        with pytest.raises(InstaVMError) as unknown:
            await client.sandboxes.get(id_)
        assert unknown.value.code == "sandbox_not_found"
    with pytest.raises(InstaVMError, match="is not an id"):
        client.sandboxes.attach("..")


def test_a_closed_client_says_so_and_closes_what_was_left_open(daemon: Daemon) -> None:
    client = InstaVM(daemon.api_key, daemon.base_url)
    with client.sandboxes.create() as sandbox:
        for _ in sandbox.exec("yes"):
            break
    client.close()
    client.close()
    with pytest.raises(InstaVMError) as closed:
        client.sandboxes.list()
    assert closed.value.code == "client_closed"


def test_no_key_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INSTAVM_API_KEY", raising=False)
    with pytest.raises(InstaVMError, match="INSTAVM_API_KEY"):
        InstaVM()


async def test_snapshots_forks_and_suspension(client: AsyncInstaVM) -> None:
    async with await client.sandboxes.create(ttl_seconds=600, metadata={"a": 1}) as sandbox:
        await sandbox.run("echo one > /dev/shm/state")
        taken = await sandbox.snapshot("mine")
        assert (taken.name, taken.status) == ("mine", "ready") and taken.size_bytes > 0
        await sandbox.run("echo two > /dev/shm/state")
        async with (
            await sandbox.fork() as fork,
            await client.sandboxes.create(snapshot_id=taken.id) as earlier,
        ):
            states = [(await one.run("cat /dev/shm/state; hostname")).stdout_text.split() for one in (fork, earlier)]
            assert [state for state, _ in states] == ["two", "one"]
            assert len({name for _, name in states}) == 2
            assert (await earlier.info()).metadata == {"a": 1}
        first = (await sandbox.info()).incarnation_id
        await sandbox.suspend()
        await sandbox.suspend()
        assert (await sandbox.info()).state == "suspended"
        assert (await sandbox.run("cat /dev/shm/state")).stdout_text == "two\n"
        assert (await sandbox.info()).incarnation_id != first
    assert (await client.snapshots.get(taken.id)).name == "mine"
    await client.snapshots.delete(taken.id)
    with pytest.raises(InstaVMError) as error:
        await client.sandboxes.create(snapshot_id=taken.id)
    assert error.value.code == "snapshot_not_found"
