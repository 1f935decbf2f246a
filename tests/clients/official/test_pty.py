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
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agents.sandbox import Manifest
from agents.sandbox.session.pty_types import PtyExecUpdate
from conftest import LIFETIME_SECONDS
from daemon import Daemon
from patience import PATIENCE_SECONDS, until
from turns import LONGEST_TURN, awaited, to_its_end
from websockets.asyncio.client import connect as web_socket
from websockets.exceptions import ConnectionClosed, InvalidStatus

from instavm import InstaVM
from instavm.integrations.openai_agents import InstaVMSandboxClient, InstaVMSandboxClientOptions


async def relay(
    url: str, typed: bytes = b"", *, resize: tuple[int, int] | None = None, shown: bytes = b""
) -> tuple[bytes, dict[str, Any] | None]:
    """As the official clients do: types at once, or when this is shown, and reads to the exit frame."""
    output, exit_frame = b"", None
    async with web_socket(url, open_timeout=PATIENCE_SECONDS, ping_timeout=None) as socket:
        if resize is not None:
            await socket.send(json.dumps({"type": "resize", "cols": resize[0], "rows": resize[1]}))
        if shown == b"":
            await socket.send(typed)
        async for frame in socket:
            if isinstance(frame, bytes):
                had, output = shown in output, output + frame
                if shown in output and not had:
                    await socket.send(typed)
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
    assert [one["session_id"] for one in client.pty.list_for_vm(vm)] == [shell["session_id"]]
    url = client.pty.ws_url_for_vm(vm, shell["session_id"])
    output, _ = asyncio.run(relay(url, b"stty size; exit\n", resize=(132, 43)))
    assert b"43 132" in output
    line = client.pty.create_for_vm(vm, login_command="echo a && echo b | tr b c; read; stty size; exit 9")
    client.pty.resize_for_vm(vm, line["session_id"], 90, 20)
    output, end = asyncio.run(relay(client.pty.ws_url_for_vm(vm, line["session_id"]), b"\n", shown=b"c\r\n"))
    assert output == b"a\r\nc\r\n\r\n20 90\r\n"
    assert end == {"type": "exit", "exit_code": 9, "signal": None}
    assert client.pty.get_for_vm(vm, line["session_id"])["exit_code"] == 9
    for one in (shell, line):
        client.pty.kill_for_vm(vm, one["session_id"])
    assert client.pty.list_for_vm(vm) == []


def test_all_output_comes_before_the_end_in_frames_that_the_client_takes(client: InstaVM) -> None:
    """It acknowledges nothing, and its library gives a connection up at a frame of more than 1 MiB."""
    session = client.session_id
    line = client.pty.create(session, login_command="stty raw; head -c 4000000 /dev/zero | tr '\\0' x; exit 3")
    output, end = asyncio.run(relay(client.pty.ws_url(session, line["session_id"])))
    assert len(output) == 4_000_000 and end is not None and end["exit_code"] == 3
    client.pty.kill(session, line["session_id"])


async def is_viewed(client: InstaVM, session: str, pty: str) -> None:
    async def has_viewer() -> bool:
        return (await asyncio.to_thread(client.pty.get, session, pty))["viewers"] == 1

    await until(has_viewer)


def test_a_kill_ends_the_terminal_under_its_viewer(client: InstaVM) -> None:
    session = client.session_id
    made = client.pty.create(session, login_command="sleep 1000")

    async def viewed() -> dict[str, Any] | None:
        viewing = asyncio.create_task(relay(client.pty.ws_url(session, made["session_id"])))
        await is_viewed(client, session, made["session_id"])
        await asyncio.to_thread(client.pty.kill, session, made["session_id"])
        return (await asyncio.wait_for(viewing, PATIENCE_SECONDS))[1]

    assert asyncio.run(viewed()) == {"type": "exit", "exit_code": 129, "signal": "SIGHUP"}


async def first_close(url: str) -> int:
    """What the server closes a connection with before it has sent any output."""
    async with web_socket(url, open_timeout=PATIENCE_SECONDS, ping_timeout=None) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            while not isinstance(await socket.recv(), bytes):
                continue
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code


def test_a_wrong_key_is_told_by_the_close_code(client: InstaVM) -> None:
    made = client.pty.create(client.session_id)
    url = client.pty.ws_url(client.session_id, made["session_id"])
    assert asyncio.run(first_close(re.sub("api_key=.*", "api_key=wrong", url))) == 4401
    assert asyncio.run(first_close(re.sub("[?]api_key=.*", "", url))) == 4401
    client.pty.kill(client.session_id, made["session_id"])


def test_what_is_not_there_is_refused_before_the_upgrade(client: InstaVM) -> None:
    vm = client.get_session_status()["vm_id"]

    async def status(url: str) -> int:
        with pytest.raises(InvalidStatus) as refused:
            await web_socket(url, open_timeout=PATIENCE_SECONDS)
        return refused.value.response.status_code

    assert asyncio.run(status(client.pty.ws_url(client.session_id, "pty-never-was"))) == 404
    assert asyncio.run(status(client.pty.ws_url(str(uuid.uuid4()), "pty-never-was"))) == 404
    assert asyncio.run(status(client.pty.ws_url_for_vm(vm, "pty-never-was"))) == 404
    assert asyncio.run(status(client.pty.ws_url_for_vm("vm_never_was", "pty-never-was"))) == 404


def test_an_ended_vm_closes_its_terminals_without_an_exit(connect: Callable[..., InstaVM]) -> None:
    """To the CLI that is a code that it may try again after, and never an exit of the program."""
    mortal = connect()
    made = mortal.pty.create(mortal.session_id, login_command="sleep 1000")

    async def closed() -> int:
        closing = asyncio.create_task(first_close(mortal.pty.ws_url(mortal.session_id, made["session_id"])))
        await is_viewed(mortal, mortal.session_id, made["session_id"])
        await asyncio.to_thread(mortal.kill)
        return await asyncio.wait_for(closing, PATIENCE_SECONDS)

    assert asyncio.run(closed()) in (4500, 4502)


async def test_the_agents_integration_types_into_a_shell_that_stays(daemon: Daemon) -> None:
    provider = InstaVMSandboxClient(api_key=daemon.api_key, base_url=daemon.base_url)
    session = await provider.create(manifest=Manifest(), options=InstaVMSandboxClientOptions())
    await session.start()
    assert session.supports_pty() is True
    started = await session.pty_exec_start("python3 -i", tty=True, yield_time_s=1)
    started = await awaited(session, started, lambda output: b">>> " in output)
    assert started.process_id is not None
    number = started.process_id

    async def type_and_see(chars: str, seen: bytes) -> PtyExecUpdate:
        told = await session.pty_write_stdin(session_id=number, chars=chars, yield_time_s=1)
        return await awaited(session, told, lambda output: re.search(seen, output) is not None)

    await type_and_see("answer = 6 * 7\n", rb">>> $")
    await type_and_see("print('it is', answer + 1)\n", rb"it is 43\r\n.*>>> $")
    # Of the shell that it was typed into.
    await type_and_see("exit()\n", rb"# $")
    ended = await to_its_end(session, await session.pty_write_stdin(session_id=number, chars="exit 4\n"))
    assert (ended.process_id, ended.exit_code) == (None, 4)
    # One that was never a terminal is deleted like one.
    piped = await session.pty_exec_start("echo piped; exit 3", tty=False, yield_time_s=LONGEST_TURN)
    assert (piped.output, piped.exit_code) == (b"piped\n", 3)
    await session.pty_terminate_all()
    await session.shutdown()


@pytest.fixture
def vm(daemon: Daemon) -> Iterator[str]:
    client = InstaVM(api_key=daemon.api_key, base_url=daemon.base_url, timeout=LIFETIME_SECONDS)
    vm = client.vms.create(wait=True, vm_lifetime_seconds=LIFETIME_SECONDS)["vm_id"]
    yield vm
    # The command line deletes its terminal when it leaves.
    assert client.pty.list_for_vm(vm) == []
    client.vms.delete(vm)
    client.kill()


@pytest.fixture
def run_in_terminal(daemon: Daemon, tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], Screen]]]:
    """Runs the official command line on a real terminal of this host."""
    names = {"HOME": str(tmp_path), "INSTAVM_BASE_URL": daemon.base_url, "INSTAVM_API_KEY": daemon.api_key}
    running: list[tuple[subprocess.Popen[bytes], Screen]] = []

    def run(*arguments: str) -> tuple[subprocess.Popen[bytes], Screen]:
        near, far = host_pty.openpty()
        set_size(far, 88, 22)
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "instavm"), *arguments],
            stdin=far,
            stdout=far,
            stderr=far,
            env=os.environ | names,
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        running.append((process, Screen(near, far)))
        return running[-1]

    yield run
    for process, screen in running:
        if process.poll() is None:
            process.kill()
            process.wait()
        screen.close()


def test_the_command_line_is_a_terminal(run_in_terminal: Any, vm: str) -> None:
    """Prompt, size and its change, Ctrl-C, and the exit code of the shell; afterwards the terminal is as it was."""
    process, screen = run_in_terminal("pty", vm)
    cooked = screen.modes()
    screen.shows(r"[#$] ")
    assert screen.modes() != cooked
    screen.types("stty size\r")
    screen.shows("22 88")
    set_size(screen.near, 101, 31)
    screen.types("while [ \"$(stty size)\" = '22 88' ]; do sleep 0.1; done; stty size\r")
    screen.shows("31 101")
    # A program of its own prints it: a shell that is about to start one may lose the signal.
    screen.types("sh -c 'echo asleep; exec sleep 1000'\r")
    screen.shows(r"\rasleep")
    screen.types("\x03")
    screen.types("echo code $?\r")
    screen.shows(r"\rcode 130")
    screen.types("exit 7\r")
    assert process.wait(PATIENCE_SECONDS) == 7
    assert screen.modes() == cooked


def test_the_command_line_takes_another_shell_and_tells_of_a_vm_that_is_not_there(
    run_in_terminal: Any, vm: str
) -> None:
    process, screen = run_in_terminal("pty", vm, "/bin/sh")
    screen.shows(r"[#$] ")
    screen.types("echo I am $0; exit 3\r")
    screen.shows(r"[\r\n]I am /bin/sh")
    assert process.wait(PATIENCE_SECONDS) == 3
    process, screen = run_in_terminal("pty", "vm_never_was")
    assert process.wait(PATIENCE_SECONDS) == 1
    screen.shows("Error creating PTY session")


def take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def set_size(descriptor: int, cols: int, rows: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


class Screen:
    """The side of a host's terminal on which a person sits."""

    def __init__(self, near: int, far: int) -> None:
        self.near = near
        #: Kept open, so that its modes can be read after the program has ended.
        self._far = far
        self._text = ""

    def types(self, text: str) -> None:
        os.write(self.near, text.encode())

    def shows(self, pattern: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not re.search(pattern, self._text):
            assert time.monotonic() < deadline, f"{pattern!r} is not in {self._text!r}"
            if select.select([self.near], [], [], 0.5)[0]:
                self._text += os.read(self.near, 65536).decode("utf-8", "replace")

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self._far)

    def close(self) -> None:
        os.close(self.near)
        os.close(self._far)
