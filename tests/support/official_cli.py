"""The official command line, unmodified, configured as a user would: by the environment, with an empty home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daemon import Daemon

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def cli_of(daemon: Daemon, home: Path) -> Cli:
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        names = {"HOME": str(home), "INSTAVM_BASE_URL": daemon.base_url, "INSTAVM_API_KEY": daemon.api_key}
        command = [str(Path(sys.executable).parent / "instavm"), *arguments]
        return subprocess.run(
            command, env=os.environ | names | environment, capture_output=True, text=True, timeout=600
        )

    return run


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
