"""Terminals with the official client and command line, unmodified."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty as host_pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from agents.sandbox import Manifest
from daemon import Daemon
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from instavm import InstaVM
from instavm.integrations.openai_agents import InstaVMSandboxClient, InstaVMSandboxClientOptions


async def relay(url: str, *typed: bytes, resize: tuple[int, int] | None = None) -> tuple[bytes, dict[str, Any] | None]:
    """As the official clients do: types at once, and reads to the exit frame."""
    output, exit_frame = b"", None
    async with connect(url) as socket:
        if resize is not None:
            await socket.send(json.dumps({"type": "resize", "cols": resize[0], "rows": resize[1]}))
        for one in typed:
            await socket.send(one)
        async for frame in socket:
            if isinstance(frame, bytes):
                output += frame
            elif json.loads(frame)["type"] == "exit":
                exit_frame = json.loads(frame)
                break
    return output, exit_frame


def test_a_terminal_lives_under_a_session(client: InstaVM) -> None:
    session = client.session_id
    made = client.pty.create(session, cols=100, rows=30, pty_id="pty-0123456789ab")
    assert made["session_id"] == "pty-0123456789ab"
    assert client.pty.list(session)[0]["session_id"] == "pty-0123456789ab"
    url = client.pty.ws_url(session, "pty-0123456789ab")
    output, end = asyncio.run(relay(url, b"stty size\nshopt -q login_shell && echo login\nexit 5\n"))
    assert b"30 100" in output and b"\rlogin\r" in output and end is not None and end["exit_code"] == 5
    info = client.pty.get(session, "pty-0123456789ab")
    assert (info["alive"], info["exit_code"]) == (False, 5)
    client.pty.kill(session, "pty-0123456789ab")
    client.pty.kill(session, "pty-never-was")
    assert client.pty.list(session) == []


def test_a_terminal_lives_under_a_vm_and_follows_its_size(client: InstaVM) -> None:
    vm = client.get_session_status()["vm_id"]
    shell = client.pty.create_for_vm(vm, command="/bin/bash")
    url = client.pty.ws_url_for_vm(vm, shell["session_id"])
    output, _ = asyncio.run(relay(url, b"stty size; exit\n", resize=(132, 43)))
    assert b"43 132" in output
    line = client.pty.create_for_vm(vm, login_command="echo a && echo b | tr b c; exit 9")
    client.pty.resize_for_vm(vm, line["session_id"], 90, 20)
    output, end = asyncio.run(relay(client.pty.ws_url_for_vm(vm, line["session_id"])))
    assert output == b"a\r\nc\r\n" and end == {"type": "exit", "exit_code": 9, "signal": None}
    for one in (shell, line):
        client.pty.kill_for_vm(vm, one["session_id"])


def test_a_wrong_key_is_told_by_the_close_code(client: InstaVM) -> None:
    made = client.pty.create(client.session_id)

    async def refused() -> int:
        url = client.pty.ws_url(client.session_id, made["session_id"])
        async with connect(re.sub("api_key=.*", "api_key=wrong", url)) as socket:
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            return closed.value.rcvd.code

    assert asyncio.run(refused()) == 4401
    client.pty.kill(client.session_id, made["session_id"])


async def test_the_agents_integration_types_into_a_shell_that_stays(daemon: Daemon) -> None:
    provider = InstaVMSandboxClient(api_key=daemon.api_key, base_url=daemon.base_url)
    session = await provider.create(manifest=Manifest(), options=InstaVMSandboxClientOptions())
    await session.start()
    assert session.supports_pty() is True
    started = await session.pty_exec_start("python3 -i", tty=True, yield_time_s=4)
    assert started.process_id is not None and b">>>" in started.output
    number = started.process_id
    await session.pty_write_stdin(session_id=number, chars="answer = 6 * 7\n", yield_time_s=1)
    told = await session.pty_write_stdin(session_id=number, chars="print('it is', answer + 1)\n", yield_time_s=2)
    assert b"it is 43" in told.output
    await session.pty_write_stdin(session_id=number, chars="exit()\n", yield_time_s=2)
    ended = await session.pty_write_stdin(session_id=number, chars="exit 4\n", yield_time_s=10)
    assert (ended.process_id, ended.exit_code) == (None, 4)
    # One that was never a terminal is deleted like one.
    piped = await session.pty_exec_start("echo piped; exit 3", tty=False, yield_time_s=10)
    assert (piped.output, piped.exit_code) == (b"piped\n", 3)
    await session.pty_terminate_all()
    await session.shutdown()


def test_the_command_line_is_a_terminal(daemon: Daemon, tmp_path: Path) -> None:
    """On a real terminal: prompt, size, its change, and the exit code of the shell."""
    client = InstaVM(api_key=daemon.api_key, base_url=daemon.base_url, timeout=600)
    vm = client.vms.create(wait=True, vm_lifetime_seconds=600)["vm_id"]
    near, far = host_pty.openpty()
    set_size(far, 88, 22)
    environment = os.environ | {
        "HOME": str(tmp_path),
        "INSTAVM_BASE_URL": daemon.base_url,
        "INSTAVM_API_KEY": daemon.api_key,
    }
    command = [str(Path(sys.executable).parent / "instavm"), "pty", vm]
    process = subprocess.Popen(
        command, stdin=far, stdout=far, stderr=far, env=environment, start_new_session=True, preexec_fn=take_terminal
    )
    os.close(far)
    screen = Screen(near)
    screen.shows(r"[#$] ")
    screen.types("stty size\r")
    screen.shows("22 88")
    set_size(near, 101, 31)
    screen.types("sleep 1; stty size\r")
    screen.shows("31 101")
    screen.types("exit 7\r")
    assert process.wait(60) == 7
    os.close(near)
    client.vms.delete(vm)
    client.kill()


def take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def set_size(descriptor: int, cols: int, rows: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


class Screen:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._text = ""

    def types(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def shows(self, pattern: str) -> None:
        until = time.monotonic() + 60
        while not re.search(pattern, self._text):
            assert time.monotonic() < until, f"{pattern!r} is not in {self._text!r}"
            if select.select([self._descriptor], [], [], 0.5)[0]:
                self._text += os.read(self._descriptor, 65536).decode("utf-8", "replace")
