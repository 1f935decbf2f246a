"""The official command line, unmodified: the commands that reach the routes this server offers."""

from __future__ import annotations

from pathlib import Path

import pytest
from daemon import Daemon
from official_cli import Cli, answer, cli_of


@pytest.fixture
def cli(daemon: Daemon, tmp_path: Path) -> Cli:
    return cli_of(daemon, tmp_path)


def test_a_vm_is_created_listed_and_removed(cli: Cli) -> None:
    vm = answer(cli("create", "--timeout", "3600", "--json"))
    assert vm["status"] == "active" and vm["session_id"]
    assert vm["vm_id"] in [one["vm_id"] for one in answer(cli("ls", "--json"))["vms"]]
    assert cli("rm", vm["vm_id"]).returncode == 0
    assert vm["vm_id"] not in cli("ls").stdout
    assert vm["vm_id"] in cli("ls", "--all").stdout


def test_code_runs_from_a_file_and_in_a_session_that_is_there(cli: Cli, tmp_path: Path) -> None:
    script = tmp_path / "answer.py"
    script.write_text("answer = 6 * 7\nprint(answer)\n")
    first = answer(cli("exec", str(script), "--json"))
    assert (first["stdout"], first["exit_code"]) == ("42\n", 0)
    second = answer(cli("exec", "--session", first["session_id"], "--cmd", "print(answer + 1)", "--json"))
    assert (second["stdout"], second["session_id"]) == ("43\n", first["session_id"])
    failed = cli("exec", "--session", first["session_id"], "--language", "bash", "--cmd", "echo why >&2; exit 4", "-j")
    assert (answer(failed)["exit_code"], answer(failed)["stderr"]) == (4, "why\n")


def test_a_background_execution_is_asked_for_later(cli: Cli) -> None:
    task = answer(cli("exec", "--async", "--language", "bash", "--cmd", "echo later", "--json"))
    assert answer(cli("exec", "result", task["task_id"], "--json"))["stdout"] == "later\n"


def test_a_policy_is_set_and_read_back(cli: Cli) -> None:
    session = answer(cli("exec", "--language", "bash", "--cmd", "true", "--json"))["session_id"]
    cli("egress", "set", "--session", session, "--deny-http", "--no-allow-package-managers", "--domain", "example.org")
    policy = answer(cli("egress", "get", "--session", session, "--json"))
    assert (policy["allow_http"], policy["allow_https"], policy["allow_package_managers"]) == (False, True, False)
    assert policy["allowed_domains"] == ["example.org"]


def test_lists_of_what_is_not_there_yet_are_empty(cli: Cli) -> None:
    assert "No SSH keys" in cli("ssh-key", "list").stdout
    assert "No volumes" in cli("volume", "ls").stdout


def test_a_vm_is_saved_restored_cloned_suspended_and_resumed(cli: Cli) -> None:
    vm = answer(cli("create", "--timeout", "3600", "--json"))["vm_id"]
    saved = answer(cli("snapshot", "create", vm, "--name", "from the command line", "--json"))
    assert saved["status"] == "ready"
    assert "from the command line" in cli("snapshot", "ls").stdout
    copy = answer(cli("create", "--snapshot", saved["id"], "--json"))["vm_id"]
    clone = answer(cli("clone", vm, "--json"))["vm_id"]
    assert answer(cli("vm", "suspend", vm, "--json"))["status"] == "suspended"
    resumed = answer(cli("vm", "resume", vm, "--json"))
    assert (resumed["status"], resumed["vm_id"] != vm) == ("active", True)
    assert cli("snapshot", "rm", saved["id"]).returncode == 0
    assert cli("rm", resumed["vm_id"], copy, clone).returncode == 0


def test_refusals_are_sentences_and_end_with_one(cli: Cli) -> None:
    vm = answer(cli("create", "--timeout", "3600", "--json"))["vm_id"]
    refused = cli("volume", "create", "v", "--quota", "1gb")
    assert (refused.returncode, "not available" in refused.stderr) == (1, True)
    share = answer(cli("share", "create", vm, "80", "--public", "--json"))
    assert share["url"].startswith("https://") and share["is_public"] is True
    assert cli("share", "set-private", share["share_id"]).returncode == 0
    assert cli("share", "revoke", share["share_id"]).returncode == 0
    assert cli("rm", vm).returncode == 0
    stranger = cli("whoami", INSTAVM_API_KEY="wrong")
    assert (stranger.returncode, "Invalid API key" in stranger.stderr) == (1, True)
