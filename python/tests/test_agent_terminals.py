"""Terminals and long commands of the provider, as the Agents SDK drives them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from agents import Runner
from agents.run import RunConfig
from agents.sandbox import SandboxAgent, SandboxRunConfig
from agents.sandbox.errors import PtySessionNotFoundError
from cable import Cable
from daemon import Daemon
from patience import until
from scripted_model import Typist
from turns import LONGEST_TURN, awaited, to_its_end

from instavm.integrations.openai_agents import InstaVMSandboxClient, processes


async def test_an_agent_keeps_a_repl_and_a_shell_open(provider: InstaVMSandboxClient) -> None:
    """A Python REPL, read -p, vim, exit codes and Ctrl-C, over many tool calls."""
    typist = Typist(
        ("runs", "python3 -i", r">>> $"),
        ("types", "answer = 6 * 7\n", r">>> $"),
        ("types", "print('the answer plus one is', answer + 1)\n", r"\nthe answer plus one is 43\r\n>>> $"),
        ("types", "exit(3)\n", r"\[exited with code 3\]$"),
        ("runs", "bash --norc --noediting -i", r"# $"),
        ("types", 'read -p "your name? " name\n', r"\nyour name\? $"),
        ("types", "Ada\n", r"# $"),
        ("types", 'echo "hello, $name"\n', r"\nhello, Ada\r\n.*# $"),
        ("types", "vim notes.txt\n", r"\x1b\[\?1049h.*notes\.txt"),
        ("types", "iwritten in vim\x1b:wq\n", r"\x1b\[\?1049l.*# $"),
        ("types", "cat notes.txt\n", r"\nwritten in vim\r\n.*# $"),
        ("types", 'ls /nowhere; echo "status $?"\n', r"\nstatus 2\r\n.*# $"),
        # It says itself that it runs: a shell that is about to start a program may lose the signal.
        ("types", "sh -c 'echo asleep; exec sleep 1000'\n", r"\nasleep\r\n"),
        ("types", "\x03", r"\^C\r?\n.*# $"),
        ("types", 'echo "after $?"\n', r"\nafter 130\r\n.*# $"),
        ("types", "exit 4\n", r"\[exited with code 4\]$"),
    )
    agent = SandboxAgent(name="T", model=typist, instructions="Work at the terminal.")
    config = RunConfig(sandbox=SandboxRunConfig(client=provider))
    result = await Runner.run(agent, "go", run_config=config, max_turns=1000)
    assert result.final_output == "done" and len(typist.transcript) == 16
    # Only the two that ended have codes, and Ctrl-C ended the sleep and not the shell.
    codes = [keys for keys, seen in typist.transcript if "[exited" in seen]
    assert codes == ["exit(3)\n", "exit 4\n"]


async def test_a_command_runs_in_a_terminal_of_its_own_and_ends_with_its_code(session: Any) -> None:
    assert session.supports_pty() is True
    first = await session.pty_exec_start(
        "test -t 0 && read -p 'name? ' n && echo hi $n && exit 5", tty=True, yield_time_s=1
    )
    first = await awaited(session, first, lambda output: b"name? " in output)
    assert first.output == b"name? " and first.process_id is not None
    began = time.monotonic()
    second = await session.pty_write_stdin(session_id=first.process_id, chars="Ada\n", yield_time_s=LONGEST_TURN)
    assert second.output == b"Ada\r\nhi Ada\r\n" and (second.exit_code, second.process_id) == (5, None)
    # The end of the program is the end of the turn, whatever it may yield.
    assert time.monotonic() - began < LONGEST_TURN
    with pytest.raises(PtySessionNotFoundError):
        await session.pty_write_stdin(session_id=first.process_id, chars="x")


async def test_a_terminal_has_its_user_its_directory_and_ends_with_the_session(session: Any) -> None:
    await session.exec("useradd -m bea && install -d -o bea /srv/bea")
    command = 'pwd; cd /srv/bea; id -un; stat -c %U "$(tty)"; echo $TERM $MODE; stty size; sleep 1000'
    started = await session.pty_exec_start(command, tty=True, user="bea", yield_time_s=1)
    started = await awaited(session, started, lambda output: output.count(b"\r\n") == 5)
    assert started.output.split(b"\r\n")[:5] == [b"/workspace", b"bea", b"bea", b"xterm-256color manifest", b"24 80"]
    sandbox = session._inner.sandbox
    assert len(await sandbox.pty.list()) == 1
    await session.pty_terminate_all()
    assert await sandbox.pty.list() == []


async def test_the_sdks_stop_ends_terminals_and_commands(session: Any) -> None:
    await session.pty_exec_start("sleep 4711", tty=True, yield_time_s=0)
    await session.pty_exec_start("sleep 4712", yield_time_s=0)
    await session.stop()
    assert await session._inner.sandbox.pty.list() == []
    gone = "for i in $(seq 1000); do pgrep -f '[s]leep 471' >/dev/null || exit 0; sleep 0.1; done; exit 1"
    assert (await session.exec(gone)).exit_code == 0


async def test_a_long_command_yields_and_is_polled_to_its_end(session: Any) -> None:
    command = "echo begun; until [ -e go ]; do sleep 0.1; done; echo done; exit 4"
    first = await session.pty_exec_start(command, yield_time_s=0.3)
    assert first.process_id is not None and first.exit_code is None
    with pytest.raises(RuntimeError, match="stdin is not available"):
        await session.pty_write_stdin(session_id=first.process_id, chars="x")
    await session.exec("touch go")
    second = await to_its_end(session, first)
    assert (second.output, second.exit_code, second.process_id) == (b"begun\ndone\n", 4, None)


async def test_a_window_never_ends_inside_a_character(session: Any) -> None:
    """Half of a character comes, then its window ends: the SDK decodes each window alone."""

    async def windows(tty: bool) -> tuple[bytes, bytes]:
        go = f"go-{tty}"
        command = rf"printf 'a\346\227'; until [ -e {go} ]; do sleep 0.1; done; printf '\245'"
        begun = await session.pty_exec_start(command, tty=tty, yield_time_s=0)
        begun = await awaited(session, begun, lambda output: output != b"")
        # A terminal has half of a character wait for the other for two seconds, and another window is longer.
        half = await session.pty_write_stdin(session_id=begun.process_id, chars="")
        await session.exec(f"touch {go}")
        rest = await to_its_end(session, await session.pty_write_stdin(session_id=begun.process_id, chars=""))
        return begun.output + half.output, rest.output

    assert await asyncio.gather(windows(True), windows(False)) == [(b"a", "日".encode())] * 2


async def test_output_is_cut_to_the_tokens_that_were_asked_for_and_says_so(session: Any) -> None:
    update = await session.pty_exec_start("seq 5000", tty=True, yield_time_s=LONGEST_TURN, max_output_tokens=50)
    assert update.exit_code == 0 and update.original_token_count > 5000
    assert b"tokens truncated" in update.output and len(update.output) < 400
    assert b"\n1\r\n2\r\n" in update.output and update.output.endswith(b"5000\r\n")


async def test_no_time_to_yield_is_the_shortest_and_not_the_default(
    session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_DEFAULT_YIELD_SECONDS", LONGEST_TURN)
    began = time.monotonic()
    update = await session.pty_exec_start("sleep 1000", tty=True, yield_time_s=0)
    assert update.process_id is not None and time.monotonic() - began < LONGEST_TURN


async def test_a_shell_that_is_not_there_is_the_commands_failure(session: Any) -> None:
    for tty in (True, False):
        update = await session.pty_exec_start("true", tty=tty, shell=["no-such-shell", "-c"])
        assert (update.exit_code, update.output) == (127, b"no-such-shell: command not found\n")


async def test_a_turn_that_is_cancelled_leaves_no_terminal(session: Any) -> None:
    turn = asyncio.create_task(session.pty_exec_start("sleep 1000", tty=True, yield_time_s=LONGEST_TURN))
    await until(lambda: bool(session._inner._processes._running))
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    assert await session._inner.sandbox.pty.list() == []


async def test_a_turn_that_is_cancelled_while_its_terminal_is_made_leaves_none(
    session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ptys = session._inner.sandbox.pty
    is_made, is_told, ask = asyncio.Event(), asyncio.Event(), ptys._http.json

    async def ask_slowly(method: str, path: str, **options: Any) -> Any:
        answer = await ask(method, path, **options)
        is_made.set()
        await is_told.wait()
        return answer

    monkeypatch.setattr(ptys._http, "json", ask_slowly)
    turn = asyncio.create_task(session.pty_exec_start("sleep 1000", tty=True))
    await is_made.wait()
    turn.cancel()
    is_told.set()
    with pytest.raises(asyncio.CancelledError):
        await turn
    assert await ptys.list() == []


async def test_the_command_that_was_not_used_for_longest_gives_way(
    session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "PTY_PROCESSES_MAX", 9)
    first = await session.pty_exec_start("cat", tty=True, yield_time_s=0)
    started = [session.pty_exec_start("cat", tty=True, yield_time_s=0) for _ in range(8)]
    await asyncio.gather(*started)
    last = await session.pty_exec_start("cat", tty=True, yield_time_s=0)
    with pytest.raises(PtySessionNotFoundError):
        await session.pty_write_stdin(session_id=first.process_id, chars="x\n")
    typed = await session.pty_write_stdin(session_id=last.process_id, chars="x\n")
    assert (await awaited(session, typed, lambda output: b"x\r\nx\r\n" in output)).process_id == last.process_id
    assert len(await session._inner.sandbox.pty.list()) == 9


async def test_a_lost_connection_is_no_end_of_a_terminal(daemon: Daemon) -> None:
    cable = Cable(daemon.base_url)
    provider = InstaVMSandboxClient(daemon.api_key, cable.url)
    session = await provider.create()
    async with session:
        shell = await session.pty_exec_start("read a; echo got $a; exit 6", tty=True, yield_time_s=0.5)
        before = cable.connections
        cable.cut()
        # What is typed before the loss is noticed may be lost with it.
        await until(lambda: cable.connections > before)
        told = await session.pty_write_stdin(session_id=shell.process_id, chars="it\n", yield_time_s=LONGEST_TURN)
        told = await to_its_end(session, told)
        assert (told.output, told.exit_code) == (b"it\r\ngot it\r\n", 6)
    await provider.delete(session)
    cable.close()
