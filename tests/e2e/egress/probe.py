"""What programs in a guest try, and how it ends: probes as JSON on argv, their outcomes as JSON on stdout."""

import errno
import json
import socket
import ssl
import struct
import sys
import threading
import time


def named(error):
    if isinstance(error, socket.gaierror):
        return {-2: "NXDOMAIN", -3: "EAI_AGAIN", -5: "NODATA"}.get(error.errno, f"EAI{error.errno}")
    if isinstance(error, ssl.SSLError):
        return "TLS"
    if isinstance(error, TimeoutError) and not getattr(error, "errno", None):
        return "timed out"
    return errno.errorcode.get(getattr(error, "errno", None), type(error).__name__)


def opened(host, port, timeout=20):
    return socket.create_connection((host, port), timeout)


def connect(host, port):
    opened(host, port).close()
    return "open"


def exchange(connection, text):
    connection.sendall(text.encode())
    answer = b""
    while piece := connection.recv(65536):
        answer += piece
    return answer.decode().split("\r\n\r\n", 1)[-1].split("\n")[-1] if answer else "nothing"


def request(host, path="/"):
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"


def http(host, said=None, port=80):
    return exchange(opened(host, port), request(said or host))


def http_twice(host, second):
    first = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"
    return exchange(opened(host, 80), first + request(second))


def raw(host, port, text):
    return exchange(opened(host, port), text)


def tls(host, sni=None):
    context = ssl._create_unverified_context()
    connection = context.wrap_socket(opened(host, 443), server_hostname=sni or host)
    return exchange(connection, request(host))


def tls_without_sni(host):
    context = ssl._create_unverified_context()
    return exchange(context.wrap_socket(opened(host, 443)), request(host))


def lookup(name, kind=1):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.sendto(query, ("127.0.0.1", 53))
        answer = client.recv(4096)
    rcode = {0: "NOERROR", 2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"}.get(answer[3] & 15, answer[3] & 15)
    return f"{rcode} {struct.unpack('>H', answer[6:8])[0]}"


def resolve(name):
    return "resolved" if socket.getaddrinfo(name, 80) else "nothing"


def udp(host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((host, port))
        client.send(b"x")
        return client.recv(10).decode()


def icmp(host):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as client:
        client.settimeout(5)
        client.sendto(b"\x08\x00\xf7\xff\x00\x00\x00\x00", (host, 0))
        return client.recv(100) and "answered"


def half_close(host, port, count):
    connection = opened(host, port)
    for _ in range(count // 65536):
        connection.sendall(b"x" * 65536)
    connection.shutdown(socket.SHUT_WR)
    answer = b""
    while piece := connection.recv(100):
        answer += piece
    return int(answer)


def after_first_byte(host, port):
    connection = opened(host, port)
    connection.sendall(b"x")
    connection.recv(1)
    return "answered"


def first_bytes(host, port, count):
    connection = opened(host, port)
    got = b""
    while len(got) < count:
        got += connection.recv(count - len(got))
    return len(got)


def download(host, count, port=80):
    connection = opened(host, port)
    connection.sendall(request(host, f"/bytes/{count}").encode())
    total = 0
    while piece := connection.recv(1 << 20):
        total += len(piece)
    return total >= count


def stalled_download(host, count, pause):
    """Reads nothing for a while; others get their answers meanwhile."""
    connection = opened(host, 80)
    connection.sendall(request(host, f"/bytes/{count}").encode())
    time.sleep(pause)
    others = http(host)
    total = 0
    while piece := connection.recv(1 << 20):
        total += len(piece)
    return [others, total >= count]


def many(host, port, count, at_once):
    """`count` connections that are opened, used and closed, by so many threads."""
    left = list(range(count))
    failed = {}

    def work():
        while left:
            try:
                left.pop()
            except IndexError:
                return
            try:
                connection = opened(host, port, 60)
                connection.sendall(b"x")
                if connection.recv(1) != b"x":
                    raise ConnectionError
                connection.close()
            except Exception as error:
                failed[named(error)] = failed.get(named(error), 0) + 1

    threads = [threading.Thread(target=work) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def together(host, port, count):
    """`count` connections that are open at the same time."""
    connections = [opened(host, port, 60) for _ in range(count)]
    for connection in connections:
        connection.sendall(b"x")
    answers = sum(connection.recv(1) == b"x" for connection in connections)
    for connection in connections:
        connection.close()
    return answers


def outcome(name, *arguments):
    began = time.monotonic()
    try:
        result = globals()[name](*arguments)
    except Exception as error:
        result = named(error)
    return {"result": result, "ms": round((time.monotonic() - began) * 1000)}


print(json.dumps([outcome(*probe) for probe in json.loads(sys.argv[1])]))
