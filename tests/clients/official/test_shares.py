"""Shares through the official client, and what is behind their addresses."""

from __future__ import annotations

import json
import shlex
from urllib.parse import urlsplit

import pytest
from visitor import visit

from instavm import InstaVM

pytestmark = pytest.mark.usefixtures("trusted")


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
