"""What is made for a caller who does not wait for it any more: nobody learns its name, so nobody else could end it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from .errors import InstaVMError

T = TypeVar("T")


async def made(making: Coroutine[Any, Any, T], undo: Callable[[T], Awaitable[None]]) -> T:
    """What `making` makes. Whoever is cancelled meanwhile is cancelled when it has come and is undone.

    When it cannot be undone it ends with its lifetime. A second cancellation ends the waiting alone.
    """
    is_unclaimed = False

    async def until_made() -> T:
        thing = await making
        if is_unclaimed:
            await undone(thing)
        return thing

    async def undone(thing: T) -> None:
        with suppress(InstaVMError):
            await undo(thing)

    task = asyncio.create_task(until_made())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # It may have come just before.
        if task.done() and not task.cancelled() and task.exception() is None:
            task = asyncio.create_task(undone(task.result()))
        is_unclaimed = True
        await asyncio.wait({task})
        raise
