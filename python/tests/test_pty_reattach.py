"""What a viewer of a terminal does when its connection fails, against a server that fails on demand."""

from __future__ import annotations

import asyncio
import http
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from patience import PATIENCE_SECONDS, until
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from instavm import AsyncInstaVM, AsyncPty, InstaVMError, _pty_viewer

#: Serves one connection of a viewer, or refuses it with a status and an error code.
Answer = Callable[["Served"], Awaitable[None]] | tuple[int, str]


class Served:
    """One connection, from the server's side."""

    def __init__(self, socket: ServerConnection, query: dict[str, str]) -> None:
        self.socket = socket
        self.query = query
        self.typed: list[bytes] = []
        self.acks: list[int] = []

    async def attached(self, offset: int | None = None, created_at: str = "2026-01-01T00:00:00.000Z") -> None:
        offset = int(self.query.get("offset", 0)) if offset is None else offset
        await self.says(type="attached", offset=offset, pty={"created_at": created_at})

    async def says(self, **frame: Any) -> None:
        await self.socket.send(json.dumps(frame))

    async def output(self, data: bytes) -> None:
        await self.socket.send(data)

    async def exit(self, code: int = 0) -> None:
        await self.says(type="exit", exit_code=code, signal=None)
        await self.socket.close()

    async def breaks(self) -> None:
        self.socket.transport.abort()

    async def hears(self) -> None:
        """One frame of the client."""
        frame = await self.socket.recv()
        if isinstance(frame, bytes):
            self.typed.append(frame)
        else:
            self.acks.append(json.loads(frame)["offset"])

    async def hears_until_it_closes(self) -> None:
        try:
            while True:
                await self.hears()
        except ConnectionClosed:
            return


class Server:
    """Answers the first attachment with the first of its answers, and so on; the last one is for all that follow."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.served: list[Served] = []
        self.attempts = 0
        self.failures: list[BaseException] = []
        self.url = ""

    def _next(self) -> Answer:
        self.attempts += 1
        return self.answers[min(self.attempts, len(self.answers)) - 1]

    async def refuse(self, socket: ServerConnection, request: Any) -> Any:
        answer = self._next()
        if isinstance(answer, tuple):
            status, code = answer
            body = json.dumps({"code": code, "detail": f"refused: {code}"})
            return socket.respond(http.HTTPStatus(status), body)
        socket.answer = answer  # type: ignore[attr-defined]
        return None

    async def serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        query = {name: values[0] for name, values in parse_qs(urlsplit(socket.request.path).query).items()}
        served = Served(socket, query)
        self.served.append(served)
        try:
            await socket.answer(served)  # type: ignore[attr-defined]
        except ConnectionClosed:
            return
        except BaseException as error:
            self.failures.append(error)
            raise


class Clock:
    """Time that passes only while somebody waits for it to pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(_pty_viewer, "_now", lambda: self.now)
        monkeypatch.setattr(_pty_viewer, "_sleep", self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    async with serve(server.serve, "127.0.0.1", 0, process_request=server.refuse, compression=None) as listening:
        server.url = f"http://127.0.0.1:{next(iter(listening.sockets)).getsockname()[1]}"
        yield server
    assert server.failures == []


@pytest.fixture
async def attach(server: Server) -> AsyncIterator[Callable[..., Awaitable[AsyncPty]]]:
    async with AsyncInstaVM("key", server.url) as client:
        viewers: list[AsyncPty] = []

        async def attach(**options: Any) -> AsyncPty:
            viewers.append(await client.sandboxes.attach("sandbox").pty.attach("t", **options))
            return viewers[-1]

        yield attach
        for viewer in viewers:
            await viewer.detach()


async def read_all(pty: AsyncPty) -> bytes:
    return b"".join([chunk async for chunk in pty])


async def says_and_breaks(it: Served) -> None:
    await it.attached()
    await it.output(b"before ")
    await it.breaks()


async def says_and_ends(it: Served) -> None:
    await it.attached()
    await it.output(b"after")
    await it.exit(3)


async def serves_quietly(it: Served) -> None:
    await it.attached()
    await it.hears_until_it_closes()


async def test_a_broken_connection_is_followed_by_another_at_its_exact_offset(server: Server, attach: Any) -> None:
    server.answers = [says_and_breaks, says_and_ends]
    pty = await attach(offset=100)
    assert await read_all(pty) == b"before after"
    assert [it.query["offset"] for it in server.served] == ["100", "107"]
    assert (pty.offset, pty.exit.exit_code) == (112, 3)


async def test_only_an_exit_frame_is_an_end(server: Server, attach: Any) -> None:
    async def closes_as_if_done(it: Served) -> None:
        await it.attached()
        await it.socket.close(1000)

    async def stops(it: Served) -> None:
        await it.attached()
        await it.socket.close(1001, "the daemon is stopping")

    server.answers = [closes_as_if_done, stops, (503, "capacity_unavailable"), says_and_ends]
    pty = await attach()
    assert await read_all(pty) == b"after" and pty.exit.exit_code == 3


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "pty_not_found"), (409, "invalid_state"), (410, "lease_expired"), (401, "unauthenticated")],
)
async def test_what_cannot_come_back_is_an_error_at_once(server: Server, attach: Any, status: int, code: str) -> None:
    server.answers = [says_and_breaks, (status, code)]
    pty = await attach()
    with pytest.raises(InstaVMError) as error:
        await read_all(pty)
    assert (error.value.status, error.value.code, pty.exit, server.attempts) == (status, code, None, 2)
    with pytest.raises(InstaVMError, match=code):
        await pty.write("x")


async def test_attempts_become_rarer_and_end(server: Server, attach: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    server.answers = [says_and_breaks, (503, "guest_unresponsive")]
    pty = await attach()
    with pytest.raises(InstaVMError, match="guest_unresponsive"):
        await read_all(pty)
    # After 0, 0.1, 0.2, 0.4, 0.8, 1.6 and 3.2 s, and ten times after 5: the next would be later than a minute.
    assert server.attempts == 1 + 7 + 10 and clock.now == pytest.approx(56.3) and pty.exit is None


async def test_a_server_that_accepts_and_drops_again_is_not_asked_without_end(
    server: Server, attach: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def drops(it: Served) -> None:
        await it.attached()
        await it.breaks()

    Clock(monkeypatch)
    server.answers = [drops]
    pty = await attach()
    with pytest.raises(InstaVMError) as error:
        await asyncio.wait_for(read_all(pty), PATIENCE_SECONDS)
    assert error.value.code == "connection_lost" and server.attempts == 1 + 7 + 10


async def test_a_terminal_that_nobody_reads_now_stays_viewed(server: Server, attach: Any) -> None:
    server.answers = [says_and_breaks, serves_quietly]
    pty = await attach()
    await until(lambda: len(server.served) == 2)
    await pty.write("typed")
    await until(lambda: server.served[1].typed == [b"typed"])
    assert await anext(pty) == b"before "


async def test_what_is_typed_in_an_outage_arrives_once_and_in_order(server: Server, attach: Any) -> None:
    may_return = asyncio.Event()

    async def returns_later(it: Served) -> None:
        await may_return.wait()
        await serves_quietly(it)

    notices: list[str] = []
    server.answers = [says_and_breaks, returns_later]
    pty = await attach(on_notice=lambda notice: notices.append(notice.kind))
    await until(lambda: notices == ["disconnected"])
    for number in range(5):
        await pty.write(f"{number} ")
    may_return.set()
    await asyncio.gather(*(pty.write(f"{number} ") for number in range(5, 9)))
    await until(lambda: b"".join(server.served[1].typed) == b"0 1 2 3 4 5 6 7 8 ")
    assert notices == ["disconnected", "reattached"]


async def test_too_much_typed_in_an_outage_is_refused(server: Server, attach: Any) -> None:
    server.answers = [says_and_breaks, (503, "guest_unresponsive")]
    pty = await attach()
    await until(lambda: server.attempts > 1)
    await pty.write(b"x" * 1_000_000)
    with pytest.raises(InstaVMError, match="too much") as error:
        await pty.write(b"x" * 100_000)
    assert error.value.code == "connection_lost"


async def test_what_a_broken_connection_may_have_taken_is_never_typed_again(server: Server, attach: Any) -> None:
    has_some = asyncio.Event()

    async def takes_some_and_breaks(it: Served) -> None:
        await it.attached()
        await it.hears()
        has_some.set()
        # What was sent by now has not been read here; nobody can know how much of it counts.
        await until(lambda: len(pty._typed) < len(frames) - 4)
        await it.breaks()

    server.answers = [takes_some_and_breaks, serves_quietly]
    pty = await attach()
    # More than the buffers of sockets hold, in frames that can be told apart.
    frames = [number.to_bytes(4, "big") * 16_384 for number in range(400)]
    writing = asyncio.create_task(pty.write(b"".join(frames)))
    await has_some.wait()
    await asyncio.wait_for(writing, PATIENCE_SECONDS)
    await until(lambda: len(server.served) == 2 and server.served[1].typed[-1:] == frames[-1:])
    numbers = [int.from_bytes(frame[:4], "big") for it in server.served for frame in it.typed]
    assert numbers == sorted(set(numbers)) and numbers[0] == 0 and len(numbers) < 400


async def test_it_acknowledges_what_its_reader_came_back_from(server: Server, attach: Any) -> None:
    async def floods(it: Served) -> None:
        await it.attached()
        for _ in range(8):
            await it.output(bytes(32 * 1024))
        await it.hears_until_it_closes()

    server.answers = [floods]
    pty = await attach()
    await until(lambda: len(server.served) == 1)
    for _ in range(2):
        await anext(pty)
    await asyncio.sleep(0.1)
    assert server.served[0].acks == []  # The second chunk may be lost with whoever reads it.
    await anext(pty)
    await until(lambda: server.served[0].acks == [64 * 1024])
    for _ in range(4):
        await anext(pty)
    await until(lambda: server.served[0].acks == [64 * 1024, 128 * 1024, 192 * 1024])


async def test_a_read_only_viewer_is_told_what_it_missed(server: Server, attach: Any) -> None:
    async def is_too_fast(it: Served) -> None:
        assert (it.query["read_only"], it.query["ack"]) == ("true", "true")
        await it.attached()
        await it.output(b"old")
        await it.says(type="skipped", offset=5000)
        await it.says(type="resized", cols=90, rows=20)
        await it.says(type="a frame of a newer server")
        await it.output(b"new")
        await it.exit()

    notices: list[Any] = []
    server.answers = [is_too_fast]
    pty = await attach(read_only=True, on_notice=notices.append)
    assert await read_all(pty) == b"oldnew" and pty.offset == 5003
    assert [(notice.kind, notice.offset, notice.cols, notice.rows) for notice in notices] == [
        ("skipped", 5000, None, None),
        ("resized", None, 90, 20),
    ]


async def test_a_viewer_that_leaves_in_an_outage_leaves_for_good(server: Server, attach: Any) -> None:
    may_return = asyncio.Event()

    async def returns_later(it: Served) -> None:
        await may_return.wait()
        await serves_quietly(it)

    server.answers = [says_and_breaks, returns_later]
    pty = await attach()
    reading = asyncio.create_task(read_all(pty))
    await until(lambda: len(server.served) == 2)
    await pty.detach()
    may_return.set()
    with pytest.raises(InstaVMError) as error:
        await reading
    assert error.value.code == "pty_detached" and pty.exit is None
    await asyncio.wait_for(server.served[1].socket.wait_closed(), PATIENCE_SECONDS)
    with pytest.raises(InstaVMError, match="detached"):
        await pty.write("x")


async def test_a_viewer_that_leaves_at_once_is_gone(server: Server, attach: Any) -> None:
    server.answers = [serves_quietly]
    pty = await attach()
    await pty.detach()
    await asyncio.wait_for(server.served[0].socket.wait_closed(), PATIENCE_SECONDS)
    with pytest.raises(InstaVMError, match="detached"):
        await anext(pty)


async def test_another_terminal_of_the_same_name_is_not_taken_for_it(server: Server, attach: Any) -> None:
    async def is_another(it: Served) -> None:
        await it.attached(created_at="2026-02-02T00:00:00.000Z")
        await it.output(b"of another program")
        await it.hears_until_it_closes()

    server.answers = [says_and_breaks, is_another]
    pty = await attach()
    output = b""
    with pytest.raises(InstaVMError) as error:
        async for chunk in pty:
            output += chunk
    assert (error.value.code, output) == ("pty_not_found", b"before ")


async def test_typing_more_than_a_program_takes_ends_the_viewer_with_that_error(server: Server, attach: Any) -> None:
    async def has_enough(it: Served) -> None:
        await it.attached()
        await it.hears()
        await it.socket.close(1011, "pty_input_full")

    server.answers = [has_enough, serves_quietly]
    pty = await attach()
    await pty.write("x")
    with pytest.raises(InstaVMError) as error:
        await read_all(pty)
    assert (error.value.code, server.attempts) == ("pty_input_full", 1)


async def test_a_server_that_accepts_and_says_nothing_is_given_up(
    server: Server, attach: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from instavm import _pty_connection

    async def is_silent(it: Served) -> None:
        await it.hears_until_it_closes()

    async def says_what_it_should_not(it: Served) -> None:
        await it.output(b"not a word of attachment")
        await it.hears_until_it_closes()

    server.answers = [is_silent]
    with monkeypatch.context() as impatience, pytest.raises(InstaVMError) as silent:
        impatience.setattr(_pty_connection, "_OPEN_TIMEOUT_SECONDS", 0.3)
        await attach()
    server.answers = [says_what_it_should_not]
    with pytest.raises(InstaVMError) as strange:
        await attach()
    assert (silent.value.code, strange.value.code) == ("connection_failed", "unexpected_answer")
    for it in server.served:
        await asyncio.wait_for(it.socket.wait_closed(), PATIENCE_SECONDS)


async def test_a_refused_key_is_told_by_the_close_code(server: Server, attach: Any) -> None:
    async def refuses(it: Served) -> None:
        await it.socket.close(4401, "unauthenticated")

    server.answers = [refuses]
    with pytest.raises(InstaVMError) as error:
        await attach()
    assert (error.value.code, error.value.status) == ("unauthenticated", 401)


async def test_two_readers_at_once_are_an_error_and_not_half_the_output_each(server: Server, attach: Any) -> None:
    server.answers = [serves_quietly]
    pty = await attach()
    reading = asyncio.create_task(read_all(pty))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="reads"):
        await pty.wait()
    await pty.detach()
    with pytest.raises(InstaVMError):
        await reading
