"""A port of a sandbox as an HTTPS address, fetched with its certificate verified: SSL_CERT_FILE says whom to trust."""

from __future__ import annotations

import http.client
import socket
import ssl
from urllib.parse import urlsplit

from instavm import InstaVM


def fetched(url: str) -> tuple[int, str, str]:
    address = urlsplit(url)
    assert address.hostname is not None and address.port is not None
    connection = http.client.HTTPSConnection(address.hostname, address.port)
    # Names under localhost are this machine: browsers know it, and not every resolver does.
    plain = socket.create_connection(("127.0.0.1", address.port))
    connection.sock = secure = ssl.create_default_context().wrap_socket(plain, server_hostname=address.hostname)
    certificate = secure.getpeercert() or {}
    issuer = ", ".join(str(value) for [(_, value)] in certificate["issuer"])  # type: ignore[misc,union-attr]
    connection.request("GET", "/")
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, issuer, body


with InstaVM() as client, client.sandboxes.create() as sandbox:
    sandbox.files.write("/srv/index.html", b"Hello from a microVM.\n")
    sandbox.run("cd /srv && setsid python3 -m http.server 8000 >/dev/null 2>&1 &")
    url = sandbox.share(8000, is_public=True).url
    # Until the service listens, the preview says so.
    while (answer := fetched(url))[0] == 502:
        pass
    status, issuer, body = answer
    print(f"{url}\n{status}, certificate of {issuer}: {body.strip()}")
