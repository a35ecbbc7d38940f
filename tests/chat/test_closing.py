"""Closed is closed: what a chat still gives, and what it refuses."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from lab import Blocking, Lab, bodies
from redis.asyncio import Redis as AsyncRedis
from redis.cluster import RedisCluster
from servers import BINARIES, Server, eventually
from waiters import Waiter, waiting

from chat import AsyncChat, Chat, ChatClosedError
from chat.store.nodes import nodes
from chat.waiting import gate, registry, wait
from chat.waiting.gate import connections_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.on_cluster, pytest.mark.on_asyncio]

CALLS: dict[str, Callable[[Any], Any]] = {
    "send_message": lambda chat: chat.send_message("lobby", "hi"),
    "check_messages": lambda chat: chat.check_messages("bob", "lobby"),
    "check_messages, waiting": lambda chat: chat.check_messages("bob", "lobby", wait=30),
    "check_many": lambda chat: chat.check_many("bob", ["lobby", "hall"]),
    "listen": lambda chat: next(chat.listen("bob", "lobby")),
    "read_history": lambda chat: chat.read_history("lobby"),
    "clients": lambda chat: list(chat.clients("lobby")),
    "count_clients": lambda chat: chat.count_clients("lobby"),
    "leave_channel": lambda chat: chat.leave_channel("bob", "lobby"),
    "channels": lambda chat: list(chat.channels()),
}


def under_way(chat: Any) -> int:
    """Return how many calls of a chat are at Redis."""
    inside = chat._chat if isinstance(chat, Blocking) else chat
    free = inside._transport._gate._free
    return connections_of(inside._transport.client) - (free._value if isinstance(free, asyncio.Semaphore) else free)


def readers(chat: Any) -> list[Any]:
    """Return what reads wake-ups: threads, or tasks of the chat's event loop."""
    if isinstance(chat, Blocking):
        return [task for task in asyncio.all_tasks(chat._loop) if task.get_name() == "chat-wake-ups"]
    threads = [subscription._reader for subscription in chat._transport._wake_ups._subscriptions.values()]
    return [thread for thread in threads if thread and thread.is_alive()]


def made(lab: Lab) -> Any:
    """Return a chat with a client that it made itself."""
    if isinstance(lab.chat, Blocking):
        return lab.chat
    port = nodes(lab.redis)[0].connection_pool.connection_kwargs["port"]
    scheme = "redis+cluster" if isinstance(lab.redis, RedisCluster) else "redis"
    return Chat.from_url(f"{scheme}://127.0.0.1:{port}")


@pytest.mark.parametrize("call", CALLS)
def test_a_closed_chat_refuses_every_call(lab: Lab, call: str) -> None:
    lab.send("lobby", "hi")
    lab.chat.close()
    with pytest.raises(
        ChatClosedError,
        match=r"^the chat is closed, calls must come before its close\(\) or aclose\(\): make another one$",
    ):
        CALLS[call](lab.chat)
    assert not readers(lab.chat)
    lab.chat.close()  # once more is no error


def test_a_check_that_holds_messages_returns_them(lab: Lab) -> None:
    chat = made(lab)
    chat.check_messages("bob", "lobby")
    chat.send_message("lobby", "hi")
    for node in nodes(lab.redis):
        node.client_pause(300)
    checking = Waiter(lambda: chat.check_messages("bob", "lobby"))
    eventually(lambda: under_way(chat))
    chat.close()
    assert bodies(checking.result()) == ["hi"]


@pytest.mark.parametrize("engine", BINARIES)
@pytest.mark.parametrize("face", ["sync", "async"], indirect=True)
@pytest.mark.parametrize("call", ["send_message", "check_messages", "check_messages, waiting", "listen"])
def test_closing_ends_calls_that_a_silent_server_holds(engine: str, call: str, tmp_path: Path) -> None:
    server = Server(engine, tmp_path).start()
    with server.client() as client:
        lab = Lab(client)
        chat = lab.chat if isinstance(lab.chat, Blocking) else Chat.from_url(server.url)
        chat.count_clients("lobby")
        server.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
        try:
            held = Waiter(lambda: CALLS[call](chat))
            eventually(lambda: under_way(chat))
            Waiter(chat.close).result(4)  # less than one time-out of a reply
            with pytest.raises(ChatClosedError):
                held.result(4)
        finally:
            server.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
            server.stop()


def test_closing_leaves_no_reader_that_the_end_of_the_interpreter_could_kill_in_a_lock(server: Server) -> None:
    chat = Chat.from_url(server.url)
    chat.check_messages("bob", "lobby", wait=0.1)
    chat.close()
    assert not readers(chat)


def test_a_fault_of_the_reader_is_no_closed_connection(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    monkeypatch.setattr(wait, "RECHECK", 0.1)
    with monkeypatch.context() as broken:
        broken.setattr(registry.Registry, "heard", lambda *_: int("a fault"))
        with Chat.from_url(server.url) as chat:
            waiter = Waiter(lambda: chat.check_messages("bob", "lobby", wait=30))
            eventually(lambda: seen)
            chat.send_message("lobby", "hi")
            assert bodies(waiter.result()) == ["hi"]
    assert {args.exc_type for args in seen} == {ValueError}


def test_a_wait_that_began_before_the_closing_starts_no_reader_after_it(server: Server) -> None:
    async def late() -> list[Any]:
        chat = AsyncChat.from_url(server.url)
        await chat.check_messages("bob", "lobby", wait=0.1)
        subscription = await chat._transport._wake_ups.subscription(b"any")
        await chat.aclose()
        with pytest.raises(ChatClosedError), subscription.ticket(b"any"):
            pass
        return [task for task in asyncio.all_tasks() if task.get_name() == "chat-wake-ups"]

    assert asyncio.run(late()) == []


def test_a_cancelled_closing_says_so_and_closes(server: Server) -> None:
    async def close() -> bool:
        chat = AsyncChat.from_url(server.url)
        await chat.check_messages("bob", "lobby", wait=0.1)
        closing = asyncio.create_task(chat.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        with pytest.raises(ChatClosedError):
            await chat.send_message("lobby", "hi")
        return closing.cancelled()

    assert asyncio.run(close())


def test_a_closing_that_a_signal_ends_closes_the_connections(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = Mock()
    chat = Chat(server.client())
    monkeypatch.setattr(chat._transport._gate, "drain", Mock(side_effect=KeyboardInterrupt))
    monkeypatch.setattr(chat._transport, "client", Mock(close=closed))
    with pytest.raises(KeyboardInterrupt):
        chat.close()
    assert closed.called


@pytest.mark.parametrize("held", [0, 1, 3])
def test_draining_leaves_as_many_places_as_it_found(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "CLOSE_TIMEOUT", 0.01)

    async def drain() -> int:
        three = gate.AsyncGate(AsyncRedis(port=1, max_connections=5))
        for _ in range(held):
            await three._free.acquire()
        await three.drain()
        return three._free._value

    assert asyncio.run(drain()) == 3 - held


def test_closing_while_many_check_raises_nothing_but_that_it_is_closed(lab: Lab) -> None:
    errors: list[Exception] = []

    def check() -> None:
        until = time.monotonic() + 20
        try:
            while time.monotonic() < until:
                lab.check("bob", "lobby")
        except Exception as error:  # noqa: BLE001  the test looks at it
            errors.append(error)

    waiter = waiting(lab)
    checking = [threading.Thread(target=check) for _ in range(10)]
    for thread in checking:
        thread.start()
    eventually(lambda: under_way(lab.chat))
    lab.chat.close()
    for thread in checking:
        thread.join(20)
    assert [type(error) for error in errors] == [ChatClosedError] * 10
    with pytest.raises(ChatClosedError):
        waiter.result()
