"""What becomes of what is made when nobody waits for it any more, against a server that answers when it is told to."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from patience import until
from slow_server import Server

from instavm import AsyncInstaVM, InstaVM, InstaVMError
from instavm._sync.loop import Loop
from instavm._unclaimed import made


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Server, AsyncInstaVM]]:
    server = Server()
    async with AsyncInstaVM("key", await server.listen()) as client:
        yield server, client


async def cancelled_before_the_answer(server: Server, asking: Awaitable[Any]) -> None:
    """Whoever asks is cancelled when the server has the request, which is answered then."""
    making = asyncio.ensure_future(asking)
    await until(lambda: len(server.requests) == 1)
    making.cancel()
    await asyncio.sleep(0)
    server.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await making


def _create(client: AsyncInstaVM) -> Awaitable[Any]:
    return client.sandboxes.create()


def _forks(client: AsyncInstaVM) -> Awaitable[Any]:
    return client.sandboxes.attach("any").forks(2)


@pytest.mark.parametrize(
    ("make", "undone"),
    [
        (_create, ["DELETE /v2/sandboxes/one-1"]),
        (_forks, ["DELETE /v2/sandboxes/one-1", "DELETE /v2/sandboxes/one-2"]),
    ],
)
async def test_sandboxes_that_are_made_for_nobody_are_ended(
    make: Callable[[AsyncInstaVM], Awaitable[Any]], undone: list[str]
) -> None:
    async with serving() as (server, client):
        await cancelled_before_the_answer(server, make(client))
        assert sorted(server.requests[1:]) == undone


async def test_a_second_cancellation_ends_the_waiting_and_not_what_is_undone() -> None:
    async with serving() as (server, client):
        making = asyncio.ensure_future(client.sandboxes.create())
        await until(lambda: len(server.requests) == 1)
        for _ in range(2):
            making.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await making
        server.gate.set()
        await until(lambda: server.requests[1:] == ["DELETE /v2/sandboxes/one-1"])


async def test_what_has_come_when_its_caller_is_cancelled_is_undone_as_well() -> None:
    undone: list[str] = []

    async def make() -> str:
        caller.cancel()
        return "thing"

    async def undo(thing: str) -> None:
        undone.append(thing)

    caller = asyncio.ensure_future(made(make(), undo))
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert undone == ["thing"]


async def test_a_cancellation_stays_one_when_nothing_can_be_undone() -> None:
    async with serving() as (server, client):
        server.refuses_deletion = True
        await cancelled_before_the_answer(server, client.sandboxes.attach("any").pty.create())


def test_ctrl_c_in_the_blocking_client_waits_until_the_sandbox_is_ended() -> None:
    loop = Loop()
    server = Server()

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        asyncio.get_running_loop().call_later(0.1, server.gate.set)

    server.on_making = interrupt
    with InstaVM("key", loop.run(server.listen())) as client, pytest.raises(KeyboardInterrupt):
        client.sandboxes.create()
    assert server.requests == ["POST /v2/sandboxes", "DELETE /v2/sandboxes/one-1"]
    loop.close()


def test_ctrl_c_ends_an_iteration_that_takes_its_time_to_close() -> None:
    loop = Loop()
    closed = False

    async def forever() -> AsyncIterator[None]:
        nonlocal closed
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
            yield
        finally:
            await asyncio.sleep(0.1)
            closed = True

    with pytest.raises(KeyboardInterrupt):
        for _ in loop.iterate(forever()):
            pass
    assert closed
    loop.close()


def test_a_call_that_comes_while_the_client_is_closed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop()
    refusals: list[str] = []

    def call() -> None:
        try:
            loop.run(asyncio.sleep(0))
        except InstaVMError as error:
            refusals.append(error.code)

    caller = threading.Thread(target=call, daemon=True)
    inner, submit = loop._loop, loop._loop.call_soon_threadsafe

    def submit_after_another(callback: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if callback == inner.stop:
            # Everything that was under way has been cancelled by now.
            caller.start()
            caller.join(0.5)
        return submit(callback, *args, **kwargs)

    monkeypatch.setattr(inner, "call_soon_threadsafe", submit_after_another)
    loop.close()
    caller.join(10)
    assert (refusals, caller.is_alive()) == (["client_closed"], False)
