"""A daemon without guests, and what there is on it for every operation to be asked about."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from daemon import Daemon, running_daemon  # noqa: E402
from patience import PATIENCE_SECONDS  # noqa: E402

#: Where nobody answers, so that no look-up leaves the machine.
NO_DNS = "127.0.0.1:9"
#: What is generated asks more often than a person may.
PLENTY = "1000000000"


class World:
    """Things of one account, made anew for every operation: the one before may have ended them."""

    def __init__(self, daemon: Daemon) -> None:
        self.base_url = daemon.base_url
        self.api_key = daemon.api_key
        self._session = requests.Session()
        self._session.headers["X-API-Key"] = daemon.api_key
        self._operation = ""
        self._ids: dict[str, str] = {}

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._session.post(self.base_url + path, json=body, timeout=PATIENCE_SECONDS)
        assert answer.ok, f"{path}: {answer.status_code} {answer.text}"
        return dict(answer.json())

    def ids_for(self, operation: str) -> dict[str, str]:
        """What the parameters of an operation, by path and method, and the fields of its body are called."""
        if operation != self._operation:
            self._end()
            self._ids = self._make(operation)
            self._operation = operation
        return self._ids

    def _make(self, operation: str) -> dict[str, str]:
        sandbox = self._post("/v2/sandboxes", {"metadata": {"team": "a"}})
        sid, vm = str(sandbox["id"]), str(sandbox["incarnation_id"])
        ids = {"sid": sid, "session_id": sid, "vm": vm, "vm_id": vm}
        ids["id"] = vm if "/vms/" in operation else sid
        if "/pty/" in operation:
            ids["pty"] = str(self._post(f"/v1/sessions/{sid}/pty/sessions", {})["session_id"])
        if "/snapshots/{id}" in operation:
            ids["id"] = str(self._post(f"/v2/sandboxes/{sid}/snapshots", {})["id"])
        if "/shares/{id}" in operation or "custom-domains" in operation:
            share = str(self._post("/v1/shares", {"session_id": sid, "port": 3000})["share_id"])
            ids |= {"id": share, "share_id": share}
            ids["link"] = str(self._post(f"/v1/shares/{share}/token", {})["link_id"])
        if "/custom-domains/{id}" in operation:
            name = f"{sid}.example.com"
            ids["id"] = str(self._post("/v1/custom-domains", {"domain": name, "share_id": share})["id"])
        if "/audit/events/" in operation:
            newest = self._session.get(f"{self.base_url}/v1/audit/events", timeout=PATIENCE_SECONDS).json()
            ids["event"] = str(newest["items"][0]["id"])
        if "/executions/" in operation:
            ids["task"] = str(self._post("/execute_async", {"session_id": sid, "command": "1"})["task_id"])
        if "/api-keys/{id}" in operation:
            ids["id"] = str(self._post("/v1/api-keys/", {})["id"])
        return ids

    def _end(self) -> None:
        if "sid" in self._ids:
            self._post("/kill", {"session_id": self._ids["sid"]})

    def close(self) -> None:
        self._end()
        self._session.close()


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    yield from running_daemon(
        INSTAVM_VMM="fake",
        INSTAVM_WARM_POOL="0",
        INSTAVM_DOMAIN_DNS_SERVERS=NO_DNS,
        INSTAVM_EGRESS_DNS=NO_DNS,
        INSTAVM_REQUESTS_PER_MINUTE=PLENTY,
        INSTAVM_CREATES_PER_MINUTE=PLENTY,
        INSTAVM_MAX_SANDBOXES="10000",
        INSTAVM_MAX_VCPUS=PLENTY,
        INSTAVM_MAX_MEMORY_MB=PLENTY,
    )


@pytest.fixture(scope="session")
def world(daemon: Daemon) -> Iterator[World]:
    world = World(daemon)
    yield world
    world.close()
