"""Commands of one session: waited for as long as asked, then left running under a number by which they are polled.

Output is returned once. A window never ends inside a UTF-8 character, because the SDK decodes each window alone.
"""

from __future__ import annotations

import asyncio
import codecs
import time
from collections.abc import AsyncIterator

from agents.sandbox.errors import ExecTransportError, PtySessionNotFoundError
from agents.sandbox.session.pty_types import (
    PTY_PROCESSES_MAX,
    PtyExecUpdate,
    allocate_pty_process_id,
    clamp_pty_yield_time_ms,
    process_id_to_prune_from_meta,
    resolve_pty_write_yield_time_ms,
    truncate_text_by_tokens,
)

from ..._client import AsyncSandbox
from ..._exec import AsyncExec
from ..._pty_viewer import AsyncPty
from ...errors import InstaVMError

_DEFAULT_YIELD_SECONDS = 10.0
_DEFAULT_WRITE_YIELD_SECONDS = 0.25
#: Kept of one command between two answers; what is dropped beyond is counted and said.
_MAX_KEPT_BYTES = 64 * 1024 * 1024


class _Piped:
    """A command with pipes; it takes no input."""

    def __init__(self, exec_: AsyncExec) -> None:
        self._exec = exec_

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._exec:
            yield chunk.data

    @property
    def exit_code(self) -> int | None:
        return None if self._exec.result is None else self._exec.result.exit_code

    async def end(self) -> None:
        await self._exec.aclose()


class _InTerminal:
    """A command that is the program of a terminal of its own, so that its end and its exit code are the terminal's."""

    def __init__(self, pty: AsyncPty) -> None:
        self._pty = pty

    def chunks(self) -> AsyncIterator[bytes]:
        return aiter(self._pty)

    @property
    def exit_code(self) -> int | None:
        return None if self._pty.exit is None else self._pty.exit.exit_code

    async def type(self, chars: str) -> None:
        await self._pty.write(chars)

    async def end(self) -> None:
        try:
            await self._pty.kill()
        except InstaVMError:
            # What cannot be told to end now ends with its linger time, or with the sandbox.
            pass
        finally:
            await self._pty.detach()


class _Process:
    def __init__(self, running: _Piped | _InTerminal, command: tuple[str, ...]) -> None:
        self.running = running
        self.command = command
        self.error: InstaVMError | None = None
        self.last_used = time.monotonic()
        self._output = bytearray()
        self._dropped = 0
        self.reader = asyncio.create_task(self._collect())

    @property
    def is_over(self) -> bool:
        return self.reader.done()

    async def _collect(self) -> None:
        try:
            async for chunk in self.running.chunks():
                self._output += chunk
                excess = len(self._output) - _MAX_KEPT_BYTES
                if excess > 0:
                    del self._output[:excess]
                    self._dropped += excess
        except InstaVMError as error:
            self.error = error

    async def wait(self, wait_ms: int) -> None:
        """Until it is over, or for this long."""
        await asyncio.wait({self.reader}, timeout=wait_ms / 1000)

    async def end(self) -> None:
        await self.running.end()
        self.reader.cancel()
        await asyncio.wait({self.reader})

    def take(self) -> str:
        """What came since the last call; while the command runs an unfinished character stays for the next."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        text = decoder.decode(bytes(self._output), final=self.is_over)
        rest, _ = decoder.getstate()
        self._output = bytearray(rest)
        note = f"[{self._dropped} bytes dropped]\n" if self._dropped else ""
        self._dropped = 0
        return note + text


class Processes:
    def __init__(self, sandbox: AsyncSandbox) -> None:
        self._sandbox = sandbox
        self._running: dict[int, _Process] = {}
        #: Commands that are about to be among them.
        self._starting = 0

    async def start(
        self,
        command: list[str],
        *,
        cwd: str,
        env: dict[str, str],
        user: str | None,
        tty: bool,
        yield_time_s: float | None,
        max_output_tokens: int | None,
    ) -> PtyExecUpdate:
        self._starting += 1
        try:
            # Before the start: the sandbox has a limit of its own on terminals, and it is this one.
            await self._make_room()
            process = await self._run(command, cwd=cwd, env=env, user=user, tty=tty)
        except InstaVMError as error:
            if error.code == "command_not_found":
                # As a shell says it: the model named a shell that is not there, and can name another one.
                return PtyExecUpdate(None, f"{command[0]}: command not found\n".encode(), 127, None)
            raise transport_error(command, error) from error
        finally:
            self._starting -= 1
        number = allocate_pty_process_id(set(self._running))
        self._running[number] = process
        yield_s = _DEFAULT_YIELD_SECONDS if yield_time_s is None else yield_time_s
        try:
            await process.wait(clamp_pty_yield_time_ms(int(yield_s * 1000)))
        except asyncio.CancelledError:
            # Nobody learns its number, so nobody else could end it.
            self._running.pop(number, None)
            await process.end()
            raise
        return self._answer(number, process, max_output_tokens)

    async def write_stdin(
        self, number: int, chars: str, *, yield_time_s: float | None, max_output_tokens: int | None
    ) -> PtyExecUpdate:
        process = self._running.get(number)
        if process is None:
            raise PtySessionNotFoundError(session_id=number)
        process.last_used = time.monotonic()
        if chars and not isinstance(process.running, _InTerminal):
            raise RuntimeError("stdin is not available for this process")
        if chars and not process.is_over:
            try:
                await process.running.type(chars)
            except InstaVMError as error:
                # A command that ended meanwhile reports its end below; anything else is the channel's failure.
                if error.code != "pty_ended":
                    raise transport_error(process.command, error) from error
        yield_s = _DEFAULT_WRITE_YIELD_SECONDS if yield_time_s is None else yield_time_s
        wait_ms = resolve_pty_write_yield_time_ms(yield_time_ms=int(yield_s * 1000), input_empty=chars == "")
        await process.wait(wait_ms)
        return self._answer(number, process, max_output_tokens)

    async def close(self) -> None:
        """Ends every command."""
        processes = list(self._running.values())
        self._running.clear()
        await asyncio.gather(*(process.end() for process in processes))

    async def _run(self, command: list[str], *, cwd: str, env: dict[str, str], user: str | None, tty: bool) -> _Process:
        running: _Piped | _InTerminal
        if tty:
            running = _InTerminal(await self._sandbox.pty.create(argv=command, cwd=cwd, env=env, user=user))
        else:
            running = _Piped(await self._sandbox.exec(command, cwd=cwd, env=env, user=user))
        return _Process(running, tuple(command))

    async def _make_room(self) -> None:
        if len(self._running) + self._starting <= PTY_PROCESSES_MAX:
            return
        meta = [(number, one.last_used, one.is_over) for number, one in self._running.items()]
        victim = process_id_to_prune_from_meta(meta)
        if victim is not None:
            await self._running.pop(victim).end()

    def _answer(self, number: int, process: _Process, max_output_tokens: int | None) -> PtyExecUpdate:
        """What came since the last answer. The number of a command that is over is free afterwards."""
        if process.is_over:
            self._running.pop(number, None)
        if process.error is not None:
            raise transport_error(process.command, process.error) from process.error
        text, token_count = truncate_text_by_tokens(process.take(), max_output_tokens)
        return PtyExecUpdate(
            process_id=None if process.is_over else number,
            output=text.encode(),
            exit_code=process.running.exit_code if process.is_over else None,
            original_token_count=token_count,
        )


def transport_error(command: list[str] | tuple[str, ...], error: InstaVMError) -> ExecTransportError:
    context = {"backend": "instavm", "code": error.code, "detail": error.message}
    try:
        return ExecTransportError(
            command=command,
            context=context,
            cause=error,
            message=f"InstaVM: {error.message}",
            retryable=error.retryable == "yes",
        )
    except TypeError:
        # openai-agents 0.14 knows neither a message nor a retry rule.
        return ExecTransportError(command=command, context=context, cause=error)
