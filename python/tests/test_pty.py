"""Terminals of the Python client, in real microVMs."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from cable import Cable
from daemon import Daemon
from patience import PATIENCE_SECONDS, until

from instavm import AsyncInstaVM, AsyncPty, AsyncSandbox, InstaVM, InstaVMError


class Follower:
    """Reads in the background, for tests that type while they read."""

    def __init__(self, pty: AsyncPty) -> None:
        self.text = ""
        self.ended = asyncio.create_task(self._read(pty))

    async def _read(self, pty: AsyncPty) -> None:
        async for chunk in pty:
            self.text += chunk.decode()

    async def shows(self, text: str) -> None:
        await until(lambda: text in self.text, lambda: f"{text!r} is not in {self.text!r}")


async def read_all(pty: AsyncPty) -> bytes:
    return b"".join([chunk async for chunk in pty])


async def test_a_program_runs_to_its_end_in_its_window(sandbox: AsyncSandbox) -> None:
    pty = await sandbox.pty.create(argv=["sh", "-c", "stty size; echo $A; exit 6"], cols=99, rows=11, env={"A": "b c"})
    assert await read_all(pty) == b"11 99\r\nb c\r\n"
    assert pty.exit is not None and (pty.exit.exit_code, pty.exit.signal) == (6, None)
    with pytest.raises(InstaVMError, match="ended"):
        await pty.write("x")


async def test_typing_resizing_and_signals_reach_the_program(sandbox: AsyncSandbox) -> None:
    traps = "trap 'stty size' WINCH; trap 'echo interrupted; exit 8' INT"
    # A whole line is read once it is there: a limit of `read` could end it in the middle of one.
    loop = 'while :; do read -t 0 && read line && echo "got $line"; sleep 0.1; done'
    pty = await sandbox.pty.create(argv=["bash", "-c", f"{traps}; echo ready; {loop}"])
    output = Follower(pty)
    await output.shows("ready")
    await pty.write("hello\n")
    await output.shows("got hello")
    await pty.resize(101, 33)
    await output.shows("33 101")
    await pty.write("\x03")
    await asyncio.wait_for(output.ended, PATIENCE_SECONDS)
    assert "interrupted" in output.text and pty.exit is not None and pty.exit.exit_code == 8
    pty = await sandbox.pty.create(argv=["sleep", "100"])
    await pty.signal("SIGTERM")
    assert (await pty.wait()).signal == "SIGTERM"


async def test_it_is_listed_described_and_killed_as_often_as_one_likes(sandbox: AsyncSandbox) -> None:
    pty = await sandbox.pty.create(argv=["sleep", "60"], id="mine", linger_seconds=9)
    info = await sandbox.pty.get("mine")
    assert (info.alive, info.viewers, info.linger_seconds, info.argv) == (True, 1, 9, ["sleep", "60"])
    assert [one.id for one in await sandbox.pty.list()] == ["mine"]
    await pty.kill()
    await sandbox.pty.kill("mine")
    assert (await pty.wait()).signal == "SIGHUP"
    with pytest.raises(InstaVMError) as error:
        await sandbox.pty.get("mine")
    assert error.value.code == "pty_not_found"


async def test_several_viewers_see_the_same_and_a_read_only_one_does_not_type(sandbox: AsyncSandbox) -> None:
    pty = await sandbox.pty.create(argv=["cat"])
    async with await sandbox.pty.attach(pty.id, read_only=True) as watcher:
        own, watched = Follower(pty), Follower(watcher)
        await watcher.write("not this\n")
        await pty.write("this\n")
        for viewer in (own, watched):
            await viewer.shows("this\r\nthis\r\n")
        assert own.text == watched.text
    assert (await sandbox.pty.get(pty.id)).alive
    assert len(await sandbox.pty.token(pty.id)) > 30
    await pty.kill()


async def test_a_cut_connection_loses_and_repeats_nothing(daemon: Daemon, sandbox: AsyncSandbox) -> None:
    size, cable = 10_000_000, Cable(daemon.base_url)
    # It ends when the sum is there.
    summed = "mkfifo /copy; sha256sum < /copy > /sum &"
    script = f"stty raw -echo; {summed} head -c {size} /dev/urandom | tee /copy; wait; exit 3"
    async with AsyncInstaVM(daemon.api_key, cable.url) as client:
        pty = await client.sandboxes.attach(sandbox.id).pty.create(argv=["bash", "-c", script])
        digest, received, next_cut = hashlib.sha256(), 0, 700_000
        async for chunk in pty:
            digest.update(chunk)
            received += len(chunk)
            if next_cut < received and next_cut < 5_000_000:
                next_cut += 900_000
                cable.cut()
        assert pty.exit is not None and (received, pty.exit.exit_code) == (size, 3)
    cable.close()
    assert (await sandbox.run("cut -c1-64 /sum")).stdout_text.strip() == digest.hexdigest()


async def test_a_program_whose_output_nobody_reads_waits(sandbox: AsyncSandbox) -> None:
    pty = await sandbox.pty.create(argv=["yes"])
    written: list[int] = []

    async def stands_still() -> bool:
        written.append((await sandbox.pty.get(pty.id)).end_offset)
        # What is kept, and what is on its way to the reader.
        assert written[-1] < 3 * 1024 * 1024
        await asyncio.sleep(0.3)
        return written[-1] > 0 and written[-3:] == 3 * [written[-1]]

    await until(stands_still, lambda: f"it writes on: {written}")
    assert pty._received - pty.offset <= 320 * 1024
    read = 0
    async for chunk in pty:
        read += len(chunk)
        if read > written[-1] + 1_000_000:
            break
    await pty.kill()
    await pty.detach()


async def test_a_lost_sandbox_is_not_an_end(client: AsyncInstaVM) -> None:
    mortal = await client.sandboxes.create()
    pty = await mortal.pty.create(argv=["cat"])
    await mortal.delete()
    with pytest.raises(InstaVMError) as error:
        await pty.wait()
    assert (error.value.status, pty.exit) == (409, None)
    with pytest.raises(InstaVMError) as error:
        await mortal.pty.attach("x")
    assert error.value.code in ("invalid_state", "sandbox_not_found")


def test_the_blocking_face_does_the_same(daemon: Daemon) -> None:
    with InstaVM(daemon.api_key, daemon.base_url) as client, client.sandboxes.create() as sandbox:
        with sandbox.pty.create(argv=["sh", "-c", "read line; echo got $line; exit 4"], id="b") as pty:
            pty.write("it\n")
            assert b"got it" in b"".join(pty) and pty.exit is not None and pty.exit.exit_code == 4
        assert [one.id for one in sandbox.pty.list()] == ["b"]
        sandbox.pty.kill("b")
        assert sandbox.pty.list() == []


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Whoever started these tests in the background had them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_reader_goes_on_where_it_was(daemon: Daemon) -> None:
    """Ctrl-C, as it comes to a program that waits for output."""
    with InstaVM(daemon.api_key, daemon.base_url) as client, client.sandboxes.create() as sandbox:
        pty = sandbox.pty.create(argv=["sh", "-c", "stty -echo; echo ready; read a; echo got $a; read b; echo got $b"])
        output = bytearray()
        for word, shown in (("one", b"ready\r\n"), ("two", b"ready\r\ngot one\r\n")):
            with pytest.raises(KeyboardInterrupt):
                interrupter = interrupt_when_it_waits(lambda shown=shown: output == shown)
                for chunk in pty:
                    output.extend(chunk)
            interrupter.join()
            pty.write(f"{word}\n")
        assert output + b"".join(pty) == b"ready\r\ngot one\r\ngot two\r\n"


def interrupt_when_it_waits(has_all: Callable[[], bool]) -> threading.Thread:
    """For the main thread, when it has all that there is and waits for more; or when that does not come."""
    main, deadline = threading.main_thread(), time.monotonic() + PATIENCE_SECONDS

    def waits() -> bool:
        frame = sys._current_frames().get(main.ident or 0)
        return frame is not None and frame.f_code is threading.Condition.wait.__code__

    def interrupt() -> None:
        while not (has_all() and waits()) and time.monotonic() < deadline:
            time.sleep(0.05)
        signal.pthread_kill(main.ident or 0, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    return interrupter
