"""Snapshots, suspension and clones with the official client, unmodified."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from agents.sandbox import Manifest
from agents.sandbox.entries import File
from agents.sandbox.snapshot import LocalSnapshotSpec
from conftest import LIFETIME_SECONDS
from daemon import Daemon

from instavm import InstaVM
from instavm.integrations.openai_agents import InstaVMSandboxClient, InstaVMSandboxClientOptions


def client_of(daemon: Daemon) -> InstaVM:
    connection = {"api_key": daemon.api_key, "base_url": daemon.base_url}
    return InstaVM(**connection, timeout=LIFETIME_SECONDS, auto_start_session=False)


def bash(client: InstaVM, session: str, command: str) -> str:
    client.session_id = session
    return client.execute(command, language="bash")["stdout"]


def test_a_vm_is_kept_restored_and_cloned(daemon: Daemon) -> None:
    client = client_of(daemon)
    vm = client.vms.create(wait=True, vm_lifetime_seconds=LIFETIME_SECONDS, metadata={"a": 1})
    bash(client, vm["session_id"], "echo one > /dev/shm/state")
    policy = {"allow_http": False, "allow_https": False, "allow_package_managers": False}
    client.set_session_egress(session_id=vm["session_id"], **policy)
    taken = client.vms.snapshot(vm["vm_id"], wait=True, name="mine")
    assert taken["status"] == "ready" and taken["id"] == taken["snapshot_id"]
    assert [one["name"] for one in client.snapshots.list() if one["id"] == taken["id"]] == ["mine"]
    bash(client, vm["session_id"], "echo two > /dev/shm/state")
    clone = client.vms.clone(vm["vm_id"], wait=True)
    again = client.vms.create(wait=True, snapshot_id=taken["id"])
    assert bash(client, clone["session_id"], "cat /dev/shm/state") == "two\n"
    assert bash(client, again["session_id"], "cat /dev/shm/state") == "one\n"
    # What was locked down stays so, though nobody says it again.
    assert client.get_session_egress(session_id=again["session_id"])["allow_https"] is False
    client.snapshots.delete(taken["id"])
    for one in (vm, clone, again):
        client.vms.delete(one["vm_id"])


def test_a_vm_is_suspended_and_resumed_under_its_session(daemon: Daemon) -> None:
    client = client_of(daemon)
    vm = client.vms.create(wait=True, vm_lifetime_seconds=LIFETIME_SECONDS, auto_resume=False)
    bash(client, vm["session_id"], "echo kept > /dev/shm/state")
    assert client.vms.suspend(vm["vm_id"])["status"] == "suspended"
    assert vm["vm_id"] in [one["vm_id"] for one in client.vms.list_all_records() if one["status"] == "suspended"]
    with pytest.raises(Exception, match="409"):
        bash(client, vm["session_id"], "true")
    resumed = client.vms.resume(vm["vm_id"], wait=True)
    assert resumed["status"] == "active" and resumed["vm_id"] != vm["vm_id"]
    assert resumed["session_id"] == vm["session_id"]
    assert bash(client, vm["session_id"], "cat /dev/shm/state") == "kept\n"
    assert client.vms.update(resumed["vm_id"], auto_resume=True)["status"] == "active"
    client.vms.suspend(resumed["vm_id"])
    assert bash(client, vm["session_id"], "cat /dev/shm/state") == "kept\n"
    client.vms.delete(client.get_session_status()["vm_id"])


async def test_a_session_is_persisted_natively_and_comes_back_in_another_process(
    daemon: Daemon, tmp_path: Path
) -> None:
    def provider() -> InstaVMSandboxClient:
        return InstaVMSandboxClient(api_key=daemon.api_key, base_url=daemon.base_url)

    first = provider()
    manifest = Manifest(entries={"a.txt": File(content=b"alpha")})
    options = InstaVMSandboxClientOptions(snapshot_on_terminate=True, snapshot_name="at the end")
    session = await first.create(manifest=manifest, options=options, snapshot=LocalSnapshotSpec(base_path=tmp_path))
    await session.start()
    await session.exec("echo kept > kept; echo in memory > /dev/shm/kept")
    await session.stop()
    stored = json.dumps(first.serialize_session_state(session._inner.state))
    await session.shutdown()
    archives = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.read_bytes().startswith(b"__INSTAVM_SNAPSHOT__") for path in archives)
    second = provider()
    again = await second.resume(second.deserialize_session_state(json.loads(stored)))
    await again.start()
    assert (await again.exec("ls; cat kept /dev/shm/kept")).stdout == b"a.txt\nkept\nkept\nin memory\n"
    await again.shutdown()
