"""Every command of the official command line: what it prints, and how it ends where the server has nothing to offer."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from daemon import Daemon
from official_cli import Cli, answer, cli_of

from instavm import cli as official

#: Commands with tests of their own, in the file that is named.
ELSEWHERE = {
    "test_cli": "rm; snapshot create; vm suspend; vm resume; share set-public; share set-private",
    "test_login": "login",
    "test_pty": "pty",
    "test_domains": "domain create; domain verify; domain wait; domain resume; domain delete",
    "test_billing": "billing status; billing allocation; billing usage; billing usage-history; billing check;"
    "billing rates; billing trends; billing forecast",
}

#: What is done, and what is printed of it. {vm}, {session} and {directory} stand for those of the test.
DONE = {
    "help vm": r"usage: instavm vm",
    "--version": r"instavm 0\.26\.1",
    "auth status": r"Base URL: http://127\.0\.0\.1:\d+ \(env\)",
    "auth logout": r".",
    "whoami": r"Email: admin@localhost[\s\S]*SSH Keys \(0\)",
    "create --timeout 60": r"VM: vm_\w+\nSession: [0-9a-f-]{36}\nStatus: active",
    "ls": r"\b{vm} +● active",
    "ls --all": r"\b{vm}\b",
    "clone {vm}": r"VM: vm_\w+\nSession: [0-9a-f-]{36}\nStatus: active",
    "connect --json {vm}": r"ssh",
    "vm update {vm} --auto-suspend": r"auto_suspend=True",
    "vm update {vm} --snapshot-on-terminate --snapshot-name end": r"snapshot_on_terminate=True, snapshot_name=end",
    "vm update {vm} --no-snapshot-on-terminate": r"snapshot_on_terminate=False",
    "snapshot ls": r"snapshots|SNAPSHOT|Snapshots|ID",
    "share create {vm} 80": r"URL: https://shr\w+\.preview\.localhost:\d+\nPort: 80\nVisibility: private",
    "egress get --vm {vm}": r"Target: vm {vm}\nStatus: ok\nPackage managers: allowed",
    "egress get --session {session}": r"HTTPS: blocked\nDomains: none\nCIDRs: none",
    "exec --language bash --cmd id": r"Session: [0-9a-f-]{36}[\s\S]*uid=0\(root\)",
    "desktop status {vm}": r"Session: {session}\nVM: {vm}\nStatus: active",
    "template list": r"No templates",
    "devbox ls": r"No devboxes",
    "tape ls": r"No tapes",
    "domain list": r"No custom domains",
    "ssh-key list": r"No SSH keys",
    "vault list": r"No vaults",
    "vault catalog": r"Service templates \(0\)",
    "browser session ls": r"No active browser sessions",
    "desktop recordings ls": r"No recordings",
    "volume ls": r"No volumes",
    "events tail --once": r".",
    "events catalog": r".",
    "webhooks list": r"no webhook endpoints",
    "webhooks deliveries": r"no deliveries",
    "doc": r"https://",
    "billing portal": r"https://",
}

#: What changes the answers of commands above, and is therefore not run beside them.
DONE_AFTERWARDS = {
    "egress set --vm {vm} --domain example.org": r"Domains: example\.org",
}

NOT_AVAILABLE = "not available on this server"

#: What this server does not offer ends with 1 and a sentence.
REFUSED = """
vm update {vm} --memory-mb 1024
vm update {vm} --vault v
create --vault v
create --volume v:/data
create --type computer-use
create --image-variant nix-dev
template get x
template run x
start x --no-input
devbox start x --no-input
tape start {session}
tape stop x
tape get x
tape events x
tape diff x --from 1 --to 2
tape branch x --at 1
tape play x
tape lanes x
tape export x
tape rm x
ssh-key add ssh-ed25519
ssh-key remove 1
vault create v
vault get x
vault update x --name y
vault delete x -y
vault discover x
vault logs x
vault secret list x
vault secret set x n --value v
vault secret rotate x 1 --value v
vault secret delete x 1 -y
vault service list x
vault service add x --template openai
vault service remove x 1
browser session create
browser session close x
browser read https://example.org
browser screenshot https://example.org --out {directory}/x.png
browser navigate https://example.org --session x
browser click a --session x
browser type a b --session x
browser fill a b --session x
browser scroll --session x --y 1
browser wait a --session x
browser extract --session x --selector a
desktop viewer {vm}
desktop recordings get x
desktop recordings download x
desktop recordings rm x
volume get x
volume create v --quota 1gb
volume update x --name y
volume rm x
volume checkpoint ls x
volume checkpoint create x
volume checkpoint rm x y
volume files ls x
volume files upload x {directory}/notes.txt
volume files download x notes.txt
volume files rm x notes.txt
webhooks create https://example.org
webhooks get x
webhooks update x --enable
webhooks delete x
webhooks verify x
webhooks rotate-secret x
webhooks test x
webhooks replay x
"""

#: Other ends: the exit code, and what is said on standard error.
ENDS = {
    "snapshot build python:3.12": (1, r"snapshots are not yet built from OCI images on this server"),
    "snapshot get 00000000-0000-4000-8000-000000000000": (1, r"HTTP 404: there is no snapshot"),
    "snapshot rm 00000000-0000-4000-8000-000000000000": (1, r"HTTP 404: there is no snapshot"),
    "share revoke shraaaaaaaaaaaaaaaaaaaa": (1, r"HTTP 404: there is no share"),
    "domain health 99": (1, r"HTTP 404: there is no custom domain 99"),
    "events get x": (1, r"."),
    "egress get": (1, r"exactly one of --session or --vm"),
    "devbox stop x": (1, r"No active devbox"),
    "devbox suspend x": (1, r"No active devbox"),
    "devbox resume x": (1, r"No active devbox"),
    "desktop start 00000000-0000-4000-8000-000000000000": (1, r"."),
    "desktop stop vm_aaaaaaaaaaaaaaaaaaaa": (1, r"."),
    "deploy --yes {directory}": (1, r"SSH key"),
    "cron ls": (2, r"does not yet include"),
    "job history": (2, r"does not yet include"),
    "run": (2, r"does not yet include"),
    "lss": (2, r"invalid choice"),
}

#: What never asks the server: files of a deployment, a catalogue on GitHub, stubs, and signatures.
CLIENT_ONLY = {"template publish", "vault setup", "cookbook list", "cookbook info", "cookbook deploy"} | {
    "auth set-key",
    "cron run",
    "cron pause",
    "cron resume",
    "cron history",
    "cron logs",
    "job logs",
    "webhooks verify-signature",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    (home / "notes.txt").write_text("notes")
    # Something that could be deployed.
    (home / "requirements.txt").write_text("flask\n")
    (home / "main.py").write_text("print(1)\n")
    return home


@pytest.fixture(scope="module")
def cli(daemon: Daemon, home: Path) -> Cli:
    return cli_of(daemon, home)


@pytest.fixture(scope="module")
def names(cli: Cli, home: Path) -> Iterator[dict[str, str]]:
    vm = answer(cli("create", "--timeout", "3600", "--json"))
    yield {"vm": vm["vm_id"], "session": vm["session_id"], "directory": str(home)}
    for one in answer(cli("ls", "--json"))["vms"]:
        cli("rm", one["vm_id"])


def filled(text: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def ran(cli: Cli, names: dict[str, str], commands: list[str]) -> Iterator[tuple[str, int, str, str]]:
    """As many at a time as keep two processors busy."""
    with ThreadPoolExecutor(3) as workers:
        done = workers.map(lambda command: cli(*filled(command, names).split()), commands)
        for command, one in zip(commands, done, strict=True):
            assert "Traceback" not in one.stderr, f"{command}: {one.stderr}"
            yield command, one.returncode, one.stdout, one.stderr


def test_what_the_server_offers_is_done_and_printed(cli: Cli, names: dict[str, str]) -> None:
    for expected in (DONE, DONE_AFTERWARDS):
        for command, status, stdout, stderr in ran(cli, names, list(expected)):
            assert (command, status, stderr if status else "") == (command, 0, "")
            assert re.search(filled(expected[command], names), stdout), f"{command}: {stdout}"


def test_what_the_server_does_not_offer_is_refused_in_words(cli: Cli, names: dict[str, str]) -> None:
    for command, status, _, stderr in ran(cli, names, REFUSED.strip().splitlines()):
        assert (command, status) == (command, 1)
        assert NOT_AVAILABLE in stderr, f"{command}: {stderr}"


def test_everything_else_ends_with_a_sentence(cli: Cli, names: dict[str, str]) -> None:
    for command, status, _, stderr in ran(cli, names, list(ENDS)):
        code, sentence = ENDS[command]
        assert (command, status) == (command, code), stderr
        assert re.search(sentence, stderr), f"{command}: {stderr}"


def test_no_command_of_this_release_is_left_out() -> None:
    tested = [*DONE, *DONE_AFTERWARDS, *REFUSED.strip().splitlines(), *ENDS, *CLIENT_ONLY]
    for line in ELSEWHERE.values():
        tested += [one.strip() for one in line.split(";")]
    missing = [
        leaf for leaf in leaves(official.build_parser()) if not any(f"{one} ".startswith(f"{leaf} ") for one in tested)
    ]
    assert missing == []


def leaves(parser: argparse.ArgumentParser, before: tuple[str, ...] = ()) -> Iterator[str]:
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield " ".join(before)
    for group in groups:
        # Aliases come after the name that they stand for.
        by_parser: dict[int, tuple[str, argparse.ArgumentParser]] = {}
        for name, below in group.choices.items():
            by_parser.setdefault(id(below), (name, below))
        for name, below in by_parser.values():
            yield from leaves(below, (*before, name))
