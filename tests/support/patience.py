"""Waiting for what is sure to come. Only a hang reaches these limits, however busy the machine is."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

#: For whatever a guest does, emulated on a machine that has better things to do.
PATIENCE_SECONDS = 300.0


async def until(holds: Callable[[], bool | Awaitable[bool]], why: Callable[[], str] = str) -> None:
    """`why` says what there is instead when it does not come to that."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        held = holds()
        if await held if inspect.isawaitable(held) else held:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not come to that: {why()}")
        await asyncio.sleep(0.02)
