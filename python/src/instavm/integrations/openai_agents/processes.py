"""Commands of one session: waited for as long as asked, then left running under a number by which they are polled.

Output is returned once. A window never ends inside a UTF-8 character, because the SDK decodes each window alone.
"""

from __future__ import annotations

import asyncio
import codecs
import shlex
import time
from dataclasses import dataclass, field

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
from ...errors import InstaVMError

_DEFAULT_YIELD_SECONDS = 10.0
_DEFAULT_WRITE_YIELD_SECONDS = 0.25
#: Kept of one command between two answers; what is dropped beyond is counted and said.
_MAX_KEPT_BYTES = 64 * 1024 * 1024
_TERMINAL = {"rows": 24, "cols": 80, "term": "xterm-256color"}


@dataclass
class _Process:
    exec: AsyncExec
    command: tuple[str, ...]
    tty: bool
    output: bytearray = field(default_factory=bytearray)
    dropped: int = 0
    error: InstaVMError | None = None
    last_used: float = field(default_factory=time.monotonic)
    reader: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        return self.reader is None or self.reader.done()

    async def collect(self) -> None:
        try:
            async for chunk in self.exec:
                self.output += chunk.data
                excess = len(self.output) - _MAX_KEPT_BYTES
                if excess > 0:
                    del self.output[:excess]
                    self.dropped += excess
        except InstaVMError as error:
            self.error = error

    def take(self) -> str:
        """What came since the last call; while the command runs an unfinished character stays for the next."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        text = decoder.decode(bytes(self.output), final=self.is_over)
        rest, _ = decoder.getstate()
        self.output = bytearray(rest)
        note = f"[{self.dropped} bytes dropped]\n" if self.dropped else ""
        self.dropped = 0
        return note + text


class Processes:
    def __init__(self, sandbox: AsyncSandbox) -> None:
        self._sandbox = sandbox
        self._running: dict[int, _Process] = {}

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
        if tty:
            env = {"TERM": str(_TERMINAL["term"])} | env
        try:
            exec_ = await self._sandbox.exec(
                _in_terminal(command) if tty else command, cwd=cwd, env=env, user=user, stdin=tty
            )
        except InstaVMError as error:
            raise transport_error(command, error) from error
        process = _Process(exec_, tuple(command), tty)
        process.reader = asyncio.create_task(process.collect())
        wait_ms = clamp_pty_yield_time_ms(int((yield_time_s or _DEFAULT_YIELD_SECONDS) * 1000))
        await asyncio.wait({process.reader}, timeout=wait_ms / 1000)
        process_id = None if process.is_over else await self._keep(process)
        return self._update(process, process_id, max_output_tokens)

    async def write_stdin(
        self, process_id: int, chars: str, *, yield_time_s: float | None, max_output_tokens: int | None
    ) -> PtyExecUpdate:
        process = self._running.get(process_id)
        if process is None or process.reader is None:
            raise PtySessionNotFoundError(session_id=process_id)
        process.last_used = time.monotonic()
        if chars and not process.tty:
            raise RuntimeError("stdin is not available for this process")
        if chars and not process.is_over:
            try:
                await process.exec.write_stdin(chars)
            except InstaVMError as error:
                # A command that ended meanwhile reports its end below; anything else is the channel's failure.
                if error.code != "connection_lost":
                    raise transport_error(process.command, error) from error
        yield_ms = int((_DEFAULT_WRITE_YIELD_SECONDS if yield_time_s is None else yield_time_s) * 1000)
        wait_ms = resolve_pty_write_yield_time_ms(yield_time_ms=yield_ms, input_empty=chars == "")
        await asyncio.wait({process.reader}, timeout=wait_ms / 1000)
        if process.is_over:
            self._running.pop(process_id, None)
        return self._update(process, None if process.is_over else process_id, max_output_tokens)

    async def close(self) -> None:
        """Ends every command."""
        processes = list(self._running.values())
        self._running.clear()
        for process in processes:
            await _end(process)

    async def _keep(self, process: _Process) -> int:
        if len(self._running) >= PTY_PROCESSES_MAX:
            meta = [(number, one.last_used, one.is_over) for number, one in self._running.items()]
            victim = process_id_to_prune_from_meta(meta)
            if victim is not None:
                await _end(self._running.pop(victim))
        number = allocate_pty_process_id(set(self._running))
        self._running[number] = process
        return number

    def _update(self, process: _Process, process_id: int | None, max_output_tokens: int | None) -> PtyExecUpdate:
        if process.error is not None:
            raise transport_error(process.command, process.error) from process.error
        text, token_count = truncate_text_by_tokens(process.take(), max_output_tokens)
        result = process.exec.result
        return PtyExecUpdate(
            process_id=process_id,
            output=text.encode(),
            exit_code=None if process_id is not None or result is None else result.exit_code,
            original_token_count=token_count,
        )


async def _end(process: _Process) -> None:
    await process.exec.aclose()
    if process.reader is not None:
        process.reader.cancel()
        await asyncio.wait({process.reader})


def _in_terminal(command: list[str]) -> list[str]:
    """A terminal is made by script(1) in the guest, whose exit status is the command's own (`--return`)."""
    line = f"stty rows {_TERMINAL['rows']} cols {_TERMINAL['cols']}; exec {shlex.join(command)}"
    return ["script", "--quiet", "--flush", "--return", "--command", line, "/dev/null"]


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
