"""The official command line logs in through the browser (contract §12.1); the browser's part is played over HTTP."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
from daemon import Daemon

#: A browser that opens nothing: the address is printed as well.
NO_BROWSER = "true"


class Browser:
    """Signed in by a one-time link, as `instavm dashboard` opens it."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        request = urllib.request.Request(
            f"{daemon.base_url}/api/auth/links", method="POST", headers={"X-API-Key": daemon.api_key}
        )
        with urllib.request.urlopen(request) as answer:
            link = json.load(answer)["url"]
        self.ask("POST", "/api/auth/link", {"token": parse_qs(urlparse(link).fragment)["link"][0]})

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"X-InstaVM-CSRF": "1", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._daemon.base_url + path, data=data, method=method, headers=headers)
        with self._opener.open(request) as answer:
            return json.load(answer)


def login(daemon: Daemon, home: Path) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INSTAVM_")}
    environment |= {"HOME": str(home), "INSTAVM_BASE_URL": daemon.base_url, "BROWSER": NO_BROWSER}
    environment |= {"PYTHONUNBUFFERED": "1"}
    command = [str(Path(sys.executable).parent / "instavm"), "login"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def pairing_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"/dashboard/cli-login\?pairing=([\w-]+)", line)
        if found:
            return found[1]
    raise AssertionError("the command ended without an address to open")


@pytest.fixture
def browser(daemon: Daemon) -> Browser:
    return Browser(daemon)


def test_it_has_a_key_when_the_person_has_said_yes(daemon: Daemon, browser: Browser, tmp_path: Path) -> None:
    process = login(daemon, tmp_path)
    pairing = pairing_of(process)
    shown = browser.ask("GET", f"/api/cli-auth/pairings/{pairing}")
    assert shown["hostname"]
    redirect = browser.ask("POST", f"/api/cli-auth/pairings/{pairing}", {"approve": True})["redirect_url"]
    with urllib.request.urlopen(redirect) as page:
        assert page.status == 200
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "admin@localhost" in output

    config = json.loads((tmp_path / ".instavm" / "config.json").read_text())
    key = config["profiles"]["default"]["auth"]["api_key"]
    assert key.startswith("instavm_sk_") and key != daemon.api_key
    environment = os.environ | {"HOME": str(tmp_path), "INSTAVM_BASE_URL": daemon.base_url}
    environment.pop("INSTAVM_API_KEY", None)
    whoami = [str(Path(sys.executable).parent / "instavm"), "whoami", "--json"]
    done = subprocess.run(whoami, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "admin@localhost" in done.stdout


def test_it_ends_with_one_when_the_person_has_said_no(daemon: Daemon, browser: Browser, tmp_path: Path) -> None:
    process = login(daemon, tmp_path)
    pairing = pairing_of(process)
    redirect = browser.ask("POST", f"/api/cli-auth/pairings/{pairing}", {"approve": False})["redirect_url"]
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(redirect)
    process.communicate(timeout=300)
    assert process.returncode == 1
    assert not (tmp_path / ".instavm" / "config.json").exists()
