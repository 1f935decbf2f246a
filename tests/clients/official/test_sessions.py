"""Sessions, VMs, account and egress policies through the official client."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import pytest
from conftest import LIFETIME_SECONDS
from daemon import Daemon
from instavm.exceptions import AuthenticationError, InstaVMError, SessionError

from instavm import InstaVM


def test_a_session_is_a_uuid_and_its_vm_is_not(client: InstaVM) -> None:
    client.execute("true", language="bash")
    status = client.get_session_status()
    assert status["session_id"] == client.session_id == str(uuid.UUID(client.session_id))
    assert (status["exists"], status["vm_assigned"], status["vm_alive"]) == (True, True, True)
    assert status["vm_status"] == "active" and client.is_session_active()
    assert 0 < status["expires_in_seconds"] <= LIFETIME_SECONDS
    with pytest.raises(ValueError):
        uuid.UUID(status["vm_id"])


def test_a_session_tells_its_details_and_its_usage(client: InstaVM) -> None:
    assert client.get_session_info()["session_id"] == client.session_id
    usage = client.get_usage()
    assert usage["session_id"] == client.session_id and usage["uptime_seconds"] >= 0


def test_the_size_the_environment_and_the_metadata_are_those_asked_for(connect: Callable[..., InstaVM]) -> None:
    label = {"run": str(uuid.uuid4())}
    client = connect(memory_mb=512, cpu_count=1, env={"GREETING": "hello"}, metadata=label)
    assert client.execute('printf "$GREETING"; nproc', language="bash")["stdout"] == "hello1\n"
    assert [vm["session_id"] for vm in client.list_sandboxes(metadata=label)] == [client.session_id]
    assert client.list_sandboxes(metadata={"run": "another"}) == []
    client.kill()


def test_a_vm_is_listed_while_it_runs_and_recorded_afterwards(connect: Callable[..., InstaVM]) -> None:
    client = connect()
    vm = client.vms.create()
    assert vm["status"] == "active"
    assert client.vms.get(vm["vm_id"])["session_id"] == vm["session_id"]
    assert vm["vm_id"] in [one["vm_id"] for one in client.vms.list()]
    client.vms.delete(vm["vm_id"])
    assert vm["vm_id"] not in [one["vm_id"] for one in client.vms.list()]
    records = {one["vm_id"]: one["status"] for one in client.vms.list_all_records()}
    assert records[vm["vm_id"]] == "terminated"


def test_a_killed_session_stays_known_and_killing_it_again_is_no_error(connect: Callable[..., InstaVM]) -> None:
    client = connect()
    session_id = client.session_id
    client.execute("true", language="bash")
    client.kill()
    client.kill(session_id)
    client.kill(str(uuid.uuid4()))
    status = client.get_session_status(session_id)
    assert (status["exists"], status["vm_assigned"], status["vm_alive"]) == (True, True, False)
    assert status["vm_status"] == "killed"


def test_a_session_ends_when_its_lifetime_is_over(connect: Callable[..., InstaVM]) -> None:
    client = connect(timeout=20)
    client.execute("true", language="bash")
    deadline = time.monotonic() + 300
    while client.get_session_status()["vm_alive"]:
        assert time.monotonic() < deadline, "the session outlived its lifetime"
        time.sleep(1)


def test_the_account_is_the_keys(client: InstaVM) -> None:
    user = client.get_current_user()
    assert user["id"] and "@" in user["email"]


def test_an_egress_policy_is_kept_for_the_session_and_its_vm(client: InstaVM) -> None:
    client.set_session_egress(allow_http=False, allow_package_managers=False, allowed_domains=["example.org"])
    policy = client.get_session_egress()
    assert (policy["allow_http"], policy["allow_https"], policy["allow_public_repos"]) == (False, True, False)
    assert (policy["allowed_domains"], policy["allowed_cidrs"]) == (["example.org"], [])
    vm_id = client.get_session_status()["vm_id"]
    client.set_vm_egress(vm_id, allow_https=False, allowed_cidrs=["192.0.2.0/24"])
    assert client.get_vm_egress(vm_id)["allowed_cidrs"] == ["192.0.2.0/24"]
    assert client.get_session_egress() == client.get_vm_egress(vm_id)


def test_a_policy_is_accepted_before_the_vm_has_done_anything(connect: Callable[..., InstaVM]) -> None:
    client = connect()
    client.set_session_egress(allow_http=False, allow_https=False, allow_package_managers=False)
    assert client.get_session_egress()["allow_https"] is False
    # CURLE_COULDNT_CONNECT: refused, and at once.
    command = "curl -sS -m 300 https://example.org; echo $?"
    assert client.execute(command, language="bash")["stdout"] == "7\n"
    client.kill()


def test_a_trailing_slash_in_the_address_does_no_harm(daemon: Daemon, connect: Callable[..., InstaVM]) -> None:
    client = connect(base_url=f"{daemon.base_url}/")
    assert client.execute("echo here", language="bash")["stdout"] == "here\n"
    client.kill()


def test_a_wrong_key_is_an_authentication_error(daemon: Daemon) -> None:
    with pytest.raises(AuthenticationError):
        InstaVM(api_key="wrong", base_url=daemon.base_url)
    with pytest.raises(AuthenticationError):
        InstaVM(api_key="wrong", base_url=daemon.base_url, auto_start_session=False).get_current_user()


def test_an_unknown_session_and_a_bad_size_are_session_errors(client: InstaVM, connect: Callable[..., InstaVM]) -> None:
    with pytest.raises(SessionError):
        client.get_session_info(str(uuid.uuid4()))
    with pytest.raises(SessionError):
        connect(memory_mb=1)
    with pytest.raises(SessionError):
        connect(timeout=1)


def test_what_is_not_there_yet_is_refused_in_words(client: InstaVM) -> None:
    with pytest.raises(InstaVMError, match="not available"):
        client.add_ssh_key("ssh-ed25519 AAAA nobody@nowhere")
    assert client.volumes.list() == []
