"""Where the asynchronous client runs for callers that block: an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import Future, wait
from typing import Any, Generic, TypeVar

from ..errors import InstaVMError

T = TypeVar("T")


class Loop:
    """An event loop in a daemon thread; calls from any thread are run there."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        #: No call is handed to the loop once it is being closed: it would never be answered.
        self._closing = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._loop.run_forever, name="instavm", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Ctrl-C cancels it, and waits until it has undone what it began; a second one does not."""
        with self._closing:
            if self._is_closed:
                coroutine.close()
                raise InstaVMError("client_closed", "this client has been closed", hint="Make another one.")
            call = _Call(self._loop, coroutine)
        return call.result()

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def iterate(self, iterator: AsyncIterator[T]) -> Iterator[T]:
        """Steps an asynchronous iterator; breaking off closes it."""

        async def step() -> tuple[bool, Any]:
            try:
                return True, await anext(iterator)
            except StopAsyncIteration:
                return False, None

        try:
            while True:
                more, value = self.run(step())
                if not more:
                    return
                yield value
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                self.run(close())

    def close(self) -> None:
        """Idempotent. What is still under way is cancelled."""
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True

        async def cancel_all() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        _Call(self._loop, cancel_all()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Call(Generic[T]):
    """A coroutine that runs in a loop of another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> None:
        self._loop = loop
        self._coroutine = coroutine
        self._answer: Future[T] = Future()
        loop.call_soon_threadsafe(self._start)

    def result(self) -> T:
        try:
            return self._answer.result()
        except BaseException:
            # Only the waiting was interrupted: what goes on in the loop would take the next piece of output with it.
            if not self._answer.done():
                self._loop.call_soon_threadsafe(lambda: self._task.cancel())
                wait([self._answer])
            raise

    def _start(self) -> None:
        self._task = self._loop.create_task(self._coroutine)
        self._task.add_done_callback(self._tell)

    def _tell(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self._answer.cancel()
            self._answer.set_running_or_notify_cancel()
        elif (error := task.exception()) is not None:
            self._answer.set_exception(error)
        else:
            self._answer.set_result(task.result())
