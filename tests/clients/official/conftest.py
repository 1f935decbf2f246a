"""The unmodified official client against a real daemon with real microVMs."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from instavm import InstaVM

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "support"))

from daemon import Daemon, running_daemon  # noqa: E402

#: Lifetime of a session and, in this client, also its HTTP timeout.
LIFETIME_SECONDS = 3600


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    yield from running_daemon()


@pytest.fixture(scope="session")
def connect(daemon: Daemon) -> Iterator[Callable[..., InstaVM]]:
    """Makes clients, each with a session of its own, and kills what they still hold at the end."""
    clients: list[InstaVM] = []

    def connect(**options: Any) -> InstaVM:
        options = {"api_key": daemon.api_key, "base_url": daemon.base_url, "timeout": LIFETIME_SECONDS} | options
        client = InstaVM(**options)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        if client.session_id:
            client.kill()


@pytest.fixture(scope="module")
def client(connect: Callable[..., InstaVM]) -> InstaVM:
    """One session for the tests of a file that leave it as it was."""
    return connect()


@pytest.fixture
def trusted(daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates of previews, as `instavm ca path --print-env` has programs trust them."""
    request = urllib.request.Request(f"{daemon.base_url}/v2/previews/ca", headers={"X-API-Key": daemon.api_key})
    with urllib.request.urlopen(request, timeout=300) as answer:
        (tmp_path / "ca.pem").write_text(json.load(answer)["certificate"])
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
