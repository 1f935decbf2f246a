"""Custom domains through the official client and its command line, with a real certificate authority behind them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from acme_daemon import AcmeDaemon, acme_daemon
from conftest import LIFETIME_SECONDS

from instavm import CustomDomainError, InstaVM


@pytest.fixture(scope="module")
def stand() -> Iterator[AcmeDaemon]:
    yield from acme_daemon()


@pytest.fixture(scope="module")
def client(stand: AcmeDaemon) -> Iterator[InstaVM]:
    client = InstaVM(api_key=stand.api_key, base_url=stand.base_url, timeout=LIFETIME_SECONDS)
    yield client
    client.kill()


@pytest.fixture(scope="module")
def share_id(client: InstaVM) -> Iterator[str]:
    """Of a program that listens in the session: with a fake, on this host."""

    class Hello(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f"hello {self.headers['host']}".encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        threading.Thread(target=server.serve_forever).start()
        port = server.server_address[1]
        yield client.shares.create(port=port, is_public=True, session_id=client.session_id)["share_id"]
        server.shutdown()


def visit(stand: AcmeDaemon, domain: str) -> str:
    """As a browser that trusts the authority."""
    context = ssl.create_default_context(cadata=stand.root)
    with contextlib.closing(http.client.HTTPSConnection(domain, stand.preview_port)) as connection:
        plain = socket.create_connection(("127.0.0.1", stand.preview_port), 300)
        connection.sock = context.wrap_socket(plain, server_hostname=domain)
        connection.request("GET", "/")
        return connection.getresponse().read().decode()


def publish(stand: AcmeDaemon, record: dict) -> None:
    txt = record["setup"]["txt_record"]
    stand.add_txt(txt["name"], txt["value"])


def test_a_domain_is_made_verified_served_and_deleted(stand: AcmeDaemon, client: InstaVM, share_id: str) -> None:
    domains = client.custom_domains
    made = domains.create(domain="shop.example.com", share_id=share_id, dns_provider="cloudflare")
    assert isinstance(made["id"], int) and made["status"] == "pending"
    with pytest.raises(CustomDomainError, match="There is no TXT record"):
        domains.verify_and_wait(made["id"], timeout=300, poll_interval=0.5)
    publish(stand, made)
    issued = domains.verify_and_wait(made["id"], timeout=300, poll_interval=0.5)
    assert issued["status"] == "issued" and issued["url"] == f"https://shop.example.com:{stand.preview_port}"
    assert domains.resume(made["id"]) == domains.get(made["id"]) == issued
    assert visit(stand, "shop.example.com") == f"hello shop.example.com:{stand.preview_port}"
    health = domains.health(made["id"])
    assert health["cert_present"] and health["key_present"] and health["proxy_active"]
    assert [record["id"] for record in domains.list()] == [made["id"]]
    domains.delete(made["id"])
    assert domains.list() == []
    with pytest.raises(ssl.SSLError):
        visit(stand, "shop.example.com")


@pytest.fixture
def cli(stand: AcmeDaemon, tmp_path: Path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INSTAVM_")}
    environment |= {"HOME": str(tmp_path), "INSTAVM_API_KEY": stand.api_key, "INSTAVM_BASE_URL": stand.base_url}

    def run(*arguments: str, status: int = 0) -> str:
        command = [sys.executable, "-m", "instavm", "domain", *arguments]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert ran.returncode == status, f"{command}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout if status == 0 else ran.stderr

    return run


def test_the_command_line_sees_a_domain_through(stand: AcmeDaemon, share_id: str, cli, tmp_path: Path) -> None:
    create = ("create", share_id, "cli.example.com", "--dns-provider", "cloudflare")
    made = json.loads(cli(*create, "--json"))
    domain_id = str(made["id"])
    shown = cli(*create)
    txt = made["setup"]["txt_record"]
    assert f"TXT   {txt['name']}  ->  {txt['value']}" in shown
    assert f"CNAME cli.example.com  ->  {share_id}.preview.localhost" in shown
    assert f"instavm domain verify {domain_id} --wait" in shown

    secret = tmp_path / "credentials.json"
    secret.write_text(json.dumps({"CF_API_TOKEN": "secret"}))
    refused = cli(
        "create", share_id, "x.example.com", "--dns-provider", "cloudflare", "--credentials-file", str(secret), status=1
    )
    assert "keeps no credentials of DNS providers" in refused and "yourself" in refused

    assert "Last error: There is no TXT record" in cli("verify", domain_id)
    assert "There is no TXT record" in cli("wait", domain_id, status=1)
    publish(stand, made)
    cli("verify", domain_id, "--wait", "--timeout", "300", "--poll-interval", "0.5")
    assert "status=issued" in cli("wait", domain_id)
    assert "status=issued" in cli("resume", domain_id, "--wait")
    listed = cli("list")
    assert "cli.example.com" in listed and "issued" in listed
    health = cli("health", domain_id)
    for line in ("Cert present: True", "Key present: True", "Proxy active: True"):
        assert line in health
    assert visit(stand, "cli.example.com").startswith("hello")
    assert "without --yes" in cli("delete", domain_id, status=1)
    cli("delete", domain_id, "--yes")
    assert "404" in cli("health", domain_id, status=1)
