"""API keys through the official client, and what its errors make of a key that may do less."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from daemon import Daemon
from instavm.exceptions import ForbiddenError
from official_cli import answer, cli_of

from instavm import AuthenticationError, InstaVM, SessionError


def test_keys_are_made_listed_changed_and_deleted(daemon: Daemon) -> None:
    client = InstaVM(api_key=daemon.api_key, base_url=daemon.base_url, auto_start_session=False)
    made = client.api_keys.create(description="of the build")
    assert made["description"] == "of the build" and made["api_key"].startswith("instavm_sk_")
    assert made["id"] in [key["id"] for key in client.api_keys.list()]
    assert "api_key" not in client.api_keys.get(made["id"])
    assert client.api_keys.update(made["id"], description="of another")["description"] == "of another"
    other = InstaVM(api_key=made["api_key"], base_url=daemon.base_url, auto_start_session=False)
    assert other.get_current_user()["email"] == client.get_current_user()["email"]
    client.api_keys.delete(made["id"])
    with pytest.raises(AuthenticationError):
        other.get_current_user()


def test_a_key_that_may_only_look_is_told_so(daemon: Daemon, tmp_path: Path) -> None:
    admin = InstaVM(api_key=daemon.api_key, base_url=daemon.base_url, auto_start_session=False)
    key = admin.api_keys.create(name="dashboard", scope="read")
    with pytest.raises((ForbiddenError, SessionError), match="scope run"):
        InstaVM(api_key=key["api_key"], base_url=daemon.base_url)
    cli = cli_of(daemon, tmp_path)
    refused = cli("create", INSTAVM_API_KEY=key["api_key"])
    assert (refused.returncode, "scope run" in refused.stderr) == (1, True)
    assert answer(cli("ls", "--json", INSTAVM_API_KEY=key["api_key"]))["vms"] is not None
    assert cli("whoami", INSTAVM_API_KEY=key["api_key"]).returncode == 0


def test_a_key_for_some_sandboxes_works_like_any_other(daemon: Daemon, connect: Callable[..., InstaVM]) -> None:
    admin = InstaVM(api_key=daemon.api_key, base_url=daemon.base_url, auto_start_session=False)
    key = admin.api_keys.create(name="team a", scope="run", sandbox_metadata={"team": "a"})
    client = connect(api_key=key["api_key"], memory_mb=512)
    assert client.execute("print(6 * 7)")["stdout"] == "42\n"
    assert [one["session_id"] for one in client.list_sandboxes()] == [client.session_id]
