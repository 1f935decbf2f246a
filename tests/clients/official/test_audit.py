"""Audit events through the official client and its command line."""

from __future__ import annotations

import json
from pathlib import Path

from daemon import Daemon
from official_cli import answer, cli_of

from instavm import InstaVM


def test_pages_filters_and_single_events(client: InstaVM) -> None:
    groups = client.audit.catalog()["catalog"]
    assert "sandbox.created" in groups["sandbox"] and all(groups.values())
    own = client.audit.events(session_id=client.session_id)
    assert [event["event_type"] for event in own["items"]] == ["sandbox.started", "sandbox.created"]
    first = client.audit.events(event_group="sandbox", limit=1)
    second = client.audit.events(event_group="sandbox", limit=1, cursor=first["next_cursor"])
    assert first["items"][0]["id"] != second["items"][0]["id"]
    event = client.audit.get_event(first["items"][0]["id"])
    assert event == first["items"][0] and event["status"] == "success"
    assert client.audit.events(event_type="sandbox.ended", vm_id="vm_none")["items"] == []


def test_every_command_of_events(daemon: Daemon, client: InstaVM, tmp_path: Path) -> None:
    cli = cli_of(daemon, tmp_path)
    tail = cli("events", "tail", "--once", "--session", str(client.session_id), "--since", "1d")
    assert tail.returncode == 0, tail.stderr
    assert ["sandbox.created" in line for line in tail.stdout.splitlines()] == [True, False]
    printed = cli("audit", "tail", "--once", "--event", "sandbox.created", "--limit", "1", "--json")
    assert printed.returncode == 0, printed.stderr
    event = json.loads(printed.stdout)
    assert answer(cli("events", "get", event["id"], "--json")) == event
    assert "Payload:" in cli("events", "get", event["id"]).stdout
    assert "  egress.denied" in cli("events", "catalog").stdout.splitlines()
