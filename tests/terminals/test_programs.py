"""Programs that expect a terminal, in a real microVM, as a person would see them."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from conftest import Open
from daemon import Daemon
from patience import until
from websockets.asyncio.client import connect

from instavm import AsyncSandbox, InstaVMError


async def test_vim_edits_a_file_on_its_own_screen(opened: Open, sandbox: AsyncSandbox) -> None:
    terminal = await opened("vim", "/root/poem.txt")
    await terminal.until(lambda: terminal.text.count("~\n") > 15, "empty lines")
    await terminal.shows("poem.txt")
    await terminal.type("iroses are red\r日本語 🦀\x1b")
    await terminal.shows("roses are red")
    await terminal.type(":%s/red/blue/\r")
    await terminal.shows("roses are blue")
    await terminal.type(":wq\r")
    assert await terminal.ends() == 0
    assert (await sandbox.files.read("/root/poem.txt")).decode() == "roses are blue\n日本語 🦀\n"


async def test_less_pages_searches_and_quits(opened: Open) -> None:
    terminal = await opened()
    await terminal.type("seq 1000 | less\r")
    await terminal.shows("\n22\n")
    await terminal.type("/^777$\r")
    await terminal.shows("777\n778")
    await terminal.type("G")
    await terminal.shows("1000\n(END)")
    await terminal.type("q")
    await terminal.type("echo back at the prompt\r")
    await terminal.shows("back at the prompt\n$")


async def test_top_redraws_in_place_and_quits(opened: Open) -> None:
    terminal = await opened("top", "-d", "0.5")
    await terminal.shows("load average")
    await terminal.shows("PID USER")
    drawn = len(terminal.raw)
    await terminal.until(lambda: len(terminal.raw) > drawn + 200, "a second picture")
    assert terminal.text.count("load average") == 1
    await terminal.type("q")
    assert await terminal.ends() == 0


async def test_the_python_and_node_repls_keep_their_state(opened: Open) -> None:
    python = await opened("python3", "-i")
    await python.shows(">>>")
    await python.type("x = 6 * 7\r")
    await python.type("print('x is', x)\r")
    await python.shows("x is 42")
    await python.type("exit(3)\r")
    assert await python.ends() == 3
    node = await opened("node")
    await node.shows("Welcome to Node.js")
    await node.type("const y = 6 * 7\r")
    await node.type("'y is ' + y\r")
    await node.shows("'y is 42'")
    await node.type(".exit\r")
    assert await node.ends() == 0


async def test_git_asks_hunk_by_hunk(opened: Open, sandbox: AsyncSandbox) -> None:
    setup = "git init -q r && cd r && git config user.email a@b && git config user.name a && seq 30 > f && git add f"
    change = "git commit -qm one && sed -i -e s/^3$/three/ -e s/^27$/late/ f"
    assert (await sandbox.run(f"{setup} && {change}", cwd="/root")).exit_code == 0
    terminal = await opened(rows=50)
    await terminal.type("cd /root/r && git add -p\r")
    await terminal.shows("(1/2) Stage this hunk")
    await terminal.type("y\r")
    await terminal.shows("(2/2) Stage this hunk")
    await terminal.type("n\r")
    await terminal.type("git diff --cached --stat; git diff | grep late\r")
    await terminal.shows("1 insertion(+), 1 deletion(-)")
    await terminal.shows("\n+late\n$")


async def test_ssh_keygen_asks_and_does_not_echo_the_passphrase(opened: Open) -> None:
    terminal = await opened("ssh-keygen", "-t", "ed25519")
    await terminal.shows("Enter file in which to save the key")
    await terminal.type("/root/key\r")
    await terminal.shows("Enter passphrase")
    await terminal.type("secret words\r")
    await terminal.shows("Enter same passphrase again")
    await terminal.type("secret words\r")
    await terminal.shows("Your public key has been saved in /root/key.pub")
    assert await terminal.ends() == 0
    assert b"secret" not in terminal.raw


async def test_the_size_is_known_and_its_change_arrives(opened: Open) -> None:
    terminal = await opened(cols=97, rows=31)
    await terminal.type("stty size; tput cols; tput lines\r")
    await terminal.shows("31 97\n97\n31")
    await terminal.type("bash -c 'trap \"stty size; exit\" WINCH; echo waiting; while :; do sleep 0.1; done'\r")
    await terminal.shows("\nwaiting")
    await terminal.pty.resize(120, 40)
    await terminal.shows("40 120")
    await terminal.type("tput cols\r")
    await terminal.shows("\n120\n")


async def test_jobs_are_stopped_listed_and_brought_back(opened: Open, sandbox: AsyncSandbox) -> None:
    async def is_in_the_foreground() -> bool:
        states = (await sandbox.run("ps -C sleep -o stat=,args= | grep 'sleep 3000$'")).stdout_text
        return "+" in states

    terminal = await opened()
    await terminal.type("sleep 3000\r")
    await until(is_in_the_foreground)
    await terminal.type("\x1a")
    await terminal.shows("Stopped")
    await terminal.type("jobs; bg\r")
    await terminal.shows("sleep 3000 &")
    await terminal.type("fg\r")
    await until(is_in_the_foreground)
    await terminal.type("\x03")
    await terminal.type("echo code $?\r")
    await terminal.shows("code 130")


async def test_colours_and_bracketed_paste(opened: Open) -> None:
    terminal = await opened()
    await terminal.type("tput colors; tput setaf 200; echo in pink; tput sgr0\r")
    await terminal.shows("256\n")
    await terminal.until(lambda: b"\x1b[38;5;200m" in terminal.raw, "the colour")
    await terminal.shows("\nin pink\n$")
    row = next(at for at, line in enumerate(terminal.screen.display) if line.startswith("in pink"))
    assert terminal.screen.buffer[row][0].fg == "ff00d7"
    # What is pasted is not run before Enter, though it holds one.
    assert b"\x1b[?2004h" in terminal.raw
    await terminal.type("\x1b[200~echo pasted\rline\x1b[201~")
    await terminal.shows("echo pasted\n")
    assert "\npasted" not in terminal.text
    await terminal.type("\r")
    await terminal.shows("\npasted")


async def test_characters_that_come_byte_by_byte_are_never_split(daemon: Daemon, sandbox: AsyncSandbox) -> None:
    text = "日本語テキスト 🦀👩‍🚀 naïve Ελληνικά"
    # After each character it waits for a key.
    program = f"""
import os, time, tty
tty.setraw(0)
for character in {text!r}:
    for byte in character.encode():
        os.write(1, bytes([byte]))
        time.sleep(0.03)
    os.read(0, 1)
"""
    pty = await sandbox.pty.create(argv=["python3", "-c", program], id="slow")
    await pty.detach()
    url = f"{daemon.base_url.replace('http', 'ws')}/v1/sessions/{sandbox.id}/pty/slow/connect?api_key={daemon.api_key}"
    frames: list[bytes] = []
    async with connect(url, proxy=None) as socket:
        async for frame in socket:
            if isinstance(frame, bytes):
                frames.append(frame)
                await socket.send(b" ")
            elif '"exit"' in frame:
                break
    assert [frame.decode() for frame in frames] == list(text)
    await sandbox.pty.kill("slow")


async def test_a_client_that_is_killed_in_a_burst_comes_back_for_exactly_the_rest(sandbox: AsyncSandbox) -> None:
    size = 10_000_000
    # It ends when the sum is there.
    summed = "mkfifo /burst; sha256sum < /burst > /burst.sum &"
    script = f"stty raw -echo; {summed} head -c {size} /dev/urandom | tee /burst; wait; exit 3"
    pty = await sandbox.pty.create(argv=["bash", "-c", script])
    digest, received, cut = hashlib.sha256(), 0, 1_500_000
    while pty.exit is None:
        async for chunk in pty:
            digest.update(chunk)
            received += len(chunk)
            if cut < received < 8_000_000:
                cut = received + 1_500_000
                break
        if pty.exit is None:
            await pty.detach()
            pty = await sandbox.pty.attach(pty.id, offset=received)
            assert pty.offset == received
    assert (received, pty.exit.exit_code) == (size, 3)
    assert (await sandbox.run("cut -c1-64 /burst.sum")).stdout_text.strip() == digest.hexdigest()
    await pty.kill()


async def test_sixty_four_terminals_at_once_and_no_more(sandbox: AsyncSandbox) -> None:
    for one in await sandbox.pty.list():
        await sandbox.pty.kill(one.id)
    script = "read line; echo got $line; exit 5"
    ptys = [await sandbox.pty.create(argv=["sh", "-c", script], id=f"n{number}") for number in range(64)]
    with pytest.raises(InstaVMError) as refused:
        await sandbox.pty.create(argv=["true"])
    assert (refused.value.code, refused.value.status) == ("too_many_ptys", 429)
    for number, pty in enumerate(ptys):
        await pty.write(f"number {number}\n")

    async def outcome(pty: object) -> tuple[bytes, int]:
        output = b"".join([chunk async for chunk in pty])  # type: ignore[attr-defined]
        return output, pty.exit.exit_code  # type: ignore[attr-defined]

    ends = await asyncio.gather(*(outcome(pty) for pty in ptys))
    assert ends == [(f"number {number}\r\ngot number {number}\r\n".encode(), 5) for number in range(64)]
    assert (await (await sandbox.pty.create(argv=["true"])).wait()).exit_code == 0
