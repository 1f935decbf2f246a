"""Turns of an agent at a command, as many as what it waits for takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from agents.sandbox.session.pty_types import PTY_YIELD_TIME_MS_MAX, PtyExecUpdate
from patience import PATIENCE_SECONDS

#: No turn takes longer, whatever it is told that it may.
LONGEST_TURN = PTY_YIELD_TIME_MS_MAX / 1000


async def awaited(session: Any, update: PtyExecUpdate, holds: Callable[[bytes], bool]) -> PtyExecUpdate:
    """Further turns, until all that came is enough, or the command is over. Returns the last one with all output."""
    output, deadline = update.output, time.monotonic() + PATIENCE_SECONDS
    while update.process_id is not None and not holds(output):
        assert time.monotonic() < deadline, f"not enough: {output!r}"
        update = await session.pty_write_stdin(session_id=update.process_id, chars="")
        output += update.output
    return replace(update, output=output)


async def to_its_end(session: Any, update: PtyExecUpdate) -> PtyExecUpdate:
    return await awaited(session, update, lambda _: False)
