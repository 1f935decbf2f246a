"""For Python tests: a daemon whose custom domains get certificates from a real authority. Its sandboxes are fakes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STOP_SECONDS = 300


class AcmeDaemon:
    def __init__(self, process: subprocess.Popen[str], said: dict[str, str]) -> None:
        self._process = process
        self.base_url = said["base_url"]
        self.api_key = said["api_key"]
        self.preview_port = int(said["preview_port"])
        #: PEM of the root that certificates of custom domains lead to.
        self.root = said["root"]

    def add_txt(self, name: str, value: str) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{name} {value}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "ok\n"


def acme_daemon() -> Iterator[AcmeDaemon]:
    """For a fixture: `yield from acme_daemon()`."""
    process = subprocess.Popen(
        [
            str(ROOT / "node_modules/.bin/node"),
            "--conditions=instavm-source",
            "--disable-warning=ExperimentalWarning",
            str(ROOT / "tests/support/acme-daemon.ts"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    with process:
        said = json.loads(process.stdout.readline())
        if "missing" in said:
            if os.environ.get("CI") == "true":
                raise AssertionError(said["missing"])
            pytest.skip(said["missing"])
        try:
            yield AcmeDaemon(process, said)
        finally:
            process.stdin.close()
            status = process.wait(STOP_SECONDS)
    assert status == 0, f"the daemon ended with status {status}"
