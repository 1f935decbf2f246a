"""A real daemon with real microVMs for the Python tests: started once for a test run, and looked after for leaks.

With INSTAVM_TEST_BASE_URL and INSTAVM_TEST_API_KEY set, an existing one is used instead.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: The first daemon on a machine boots and freezes a template. Only a hang takes as long.
START_SECONDS = 900
#: It ends what the tests left running.
STOP_SECONDS = 300
#: A process that was just killed is listed until its parent has reaped it.
REAPED_SECONDS = 60


@dataclass(frozen=True)
class Daemon:
    base_url: str
    api_key: str


def running_daemon(**settings: str) -> Iterator[Daemon]:
    """For a session-scoped fixture: `yield from running_daemon()`. With settings of its own it is always a new one."""
    if "INSTAVM_TEST_BASE_URL" in os.environ and not settings:
        yield Daemon(os.environ["INSTAVM_TEST_BASE_URL"], os.environ["INSTAVM_TEST_API_KEY"])
        return
    with tempfile.TemporaryDirectory(prefix="instavm-pytest-") as directory:
        process, url = _start(Path(directory), settings)
        try:
            yield Daemon(url, (Path(directory) / "admin.key").read_text().strip())
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(STOP_SECONDS)
        assert status == 0, f"the daemon ended with status {status}"
        assert _processes_left_in(directory) == [], "processes of sandboxes are left"
        left = list((Path(directory) / "run").glob("*")) if (Path(directory) / "run").exists() else []
        assert left == [], f"sockets or overlays are left: {left}"


def _start(directory: Path, settings: dict[str, str]) -> tuple[subprocess.Popen[str], str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INSTAVM_")}
    environment |= {
        "INSTAVM_DATA_DIR": str(directory),
        "INSTAVM_LISTEN": "127.0.0.1:0",
        "INSTAVM_PREVIEW_LISTEN": "127.0.0.1:0",
        "INSTAVM_ON_STOP": "end",
    } | settings
    if "INSTAVM_CACHE_DIR" in os.environ:
        environment["INSTAVM_CACHE_DIR"] = os.environ["INSTAVM_CACHE_DIR"]
    process = subprocess.Popen(
        [str(ROOT / "node_modules/.bin/node"), str(ROOT / "apps/instavmd/src/main.mjs")],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    assert process.stdout is not None
    for line in process.stdout:
        message = json.loads(line)
        if str(message.get("msg", "")).startswith("listening on ") and "url" in message:
            timer.cancel()
            # What it logs later is read and dropped, or its pipe would fill.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return process, message["url"]
    timer.cancel()
    raise RuntimeError(f"the daemon ended with status {process.wait()}; run: npm run doctor")


def _processes_left_in(directory: str) -> list[str]:
    until = time.monotonic() + REAPED_SECONDS
    while (found := _processes_in(directory)) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def _processes_in(directory: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "cwd").startswith(directory):
                found.append((entry / "cmdline").read_text()[:120])
        except OSError:
            # The process ended, or belongs to somebody else.
            continue
    return found
