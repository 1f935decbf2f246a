"""Shares through the official client, and what is behind their addresses."""

from __future__ import annotations

import http.client
import json
import shlex
import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from daemon import Daemon

from instavm import InstaVM


class Connection(http.client.HTTPSConnection):
    """Finds names under `localhost` on this machine, as browsers do, and verifies certificates."""

    def connect(self) -> None:
        plain = socket.create_connection(("127.0.0.1", self.port), 30)
        self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)


class Handler(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(Connection, request)


def visit(url: str) -> tuple[int, str]:
    """As a browser: follows redirects, keeps cookies."""
    opener = urllib.request.build_opener(Handler(), urllib.request.HTTPCookieProcessor())
    try:
        with opener.open(url, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture(autouse=True)
def trusted(daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `instavm ca path --print-env` says it to programs."""
    request = urllib.request.Request(f"{daemon.base_url}/v2/previews/ca", headers={"X-API-Key": daemon.api_key})
    with urllib.request.urlopen(request, timeout=30) as answer:
        (tmp_path / "ca.pem").write_text(json.load(answer)["certificate"])
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))


def test_a_share_is_public_private_and_revoked(client: InstaVM) -> None:
    serve = "mkdir -p /srv; echo shared > /srv/index.html; cd /srv; setsid python3 -m http.server 3000"
    wait = "until curl -sf -o /dev/null http://127.0.0.1:3000/; do sleep 0.1; done"
    client.execute(f"sh -c {shlex.quote(serve)} >/dev/null 2>&1 & {wait}", language="bash")
    share = client.shares.create(port=3000, is_public=True, session_id=client.session_id)
    assert share["port"] == 3000 and share["is_public"] is True
    url = share["url"]
    assert urlsplit(url).scheme == "https" and urlsplit(url).path in ("", "/")
    assert client.shares.create(port=3000, is_public=True, session_id=client.session_id)["url"] == url
    assert visit(url) == (200, "shared\n")
    client.shares.update(share["share_id"], is_public=False)
    status, page = visit(url)
    assert status == 200 and "shared" not in page
    client.shares.update(share["share_id"], revoke=True)
    assert visit(url)[0] == 404


def test_an_app_url_opens_without_a_credential(client: InstaVM) -> None:
    answer = client.get_session_app_url(port=3111)
    assert json.dumps(answer) and answer["direct_url"] == answer["url"]
    status, page = visit(answer["url"])
    assert (status, "3111" in page) == (502, True)
