"""A visitor of previews: finds names under `localhost` on this machine, as browsers do, and verifies certificates."""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.error
import urllib.request

from patience import PATIENCE_SECONDS


class Connection(http.client.HTTPSConnection):
    def connect(self) -> None:
        plain = socket.create_connection(("127.0.0.1", self.port), PATIENCE_SECONDS)
        self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)


class Handler(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(Connection, request)


def visit(url: str) -> tuple[int, str]:
    """As a browser: follows redirects, keeps cookies."""
    opener = urllib.request.build_opener(Handler(), urllib.request.HTTPCookieProcessor())
    try:
        with opener.open(url, timeout=PATIENCE_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
