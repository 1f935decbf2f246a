"""The announcement's example as it stands in `examples/`: a program of its own, configured by its environment alone."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from daemon import Daemon
from patience import PATIENCE_SECONDS

from instavm import AsyncInstaVM

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/data_analyst.py"
COMMAND = "awk -F, 'NR > 1 && $2 > 500 {print $1, $2}' sales.csv"


class Endpoint(BaseHTTPRequestHandler):
    """Answers `POST /v1/responses` twice: with a command to run, then with what the command wrote."""

    requests: list[dict[str, Any]]

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        type(self).requests.append(request)
        outputs = [item["output"] for item in request["input"] if item.get("type") == "function_call_output"]
        body = json.dumps(self._response(outputs)).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _response(self, outputs: list[str]) -> dict[str, Any]:
        if outputs:
            content = [{"type": "output_text", "text": f"The outlier:\n{outputs[-1]}", "annotations": []}]
            item = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": content}
        else:
            item = {"type": "function_call", "id": "f", "call_id": "c", "status": "completed", "name": "exec_command"}
            item["arguments"] = json.dumps({"cmd": COMMAND})
        usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
        usage |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
        answer = {"id": "r", "object": "response", "created_at": 0, "status": "completed", "model": "gpt-4.1"}
        settings = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
        return answer | settings | {"output": [item], "usage": usage}

    def log_message(self, *_: Any) -> None:
        """Keeps the test's output to itself."""


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    requests: list[dict[str, Any]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneEndpoint", (Endpoint,), {"requests": requests}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", requests
    server.shutdown()
    thread.join()
    server.server_close()


async def test_the_announcements_example_runs_as_written_and_ends_its_sandbox(
    daemon: Daemon, endpoint: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    url, requests = endpoint
    settings = {"INSTAVM_BASE_URL": daemon.base_url, "INSTAVM_API_KEY": daemon.api_key}
    settings |= {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "any", "OPENAI_AGENTS_DISABLE_TRACING": "1"}
    # The SDK keeps snapshots of workspaces below the home.
    settings |= {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLE),
        env=os.environ | settings,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    assert b"The outlier:" in output and b"in 980" in output
    assert "sales.csv" in requests[0]["instructions"] and len(requests) == 2
    async with AsyncInstaVM(daemon.api_key, daemon.base_url) as client:
        newest = (await client.sandboxes.list())[0]
        assert newest.state == "stopped"
