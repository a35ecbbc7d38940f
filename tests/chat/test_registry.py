"""Who waits for which name, without any I/O: what the connection sends, and whom its end wakes."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, NoPermissionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from servers import eventually
from waiters import Waiter

from chat import Chat, ChatClosedError
from chat.waiting.checks import CheckThreads
from chat.waiting.registry import LINGER, Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers import Server

LOBBY, HALL = b"log:lobby", b"log:hall"
OUTAGE = RedisConnectionError("gone")


def registry(*, in_cluster: bool = False) -> Registry:
    return Registry(threading.Event, in_cluster=in_cluster)


def test_the_first_ticket_of_a_name_subscribes_and_the_first_of_all_starts_the_reader() -> None:
    names = registry()
    tickets = [names.ticket(name) for name in (LOBBY, LOBBY, HALL)]
    assert [ticket.commands for ticket in tickets] == [[("SSUBSCRIBE", LOBBY)], [], [("SSUBSCRIBE", HALL)]]
    assert [ticket.starts_reader for ticket in tickets] == [True, False, False]


def test_a_publication_wakes_those_who_waited_for_its_name_before_it() -> None:
    names = registry()
    before, other = names.ticket(LOBBY), names.ticket(HALL)
    names.heard([b"smessage", LOBBY, b""])
    assert [ticket.event.is_set() for ticket in (before, other, names.ticket(LOBBY))] == [True, False, False]


def test_a_name_is_dropped_when_nobody_has_waited_for_it_for_a_while_and_the_reader_ends_with_the_last() -> None:
    names = registry()
    lobby, hall = names.ticket(LOBBY), names.ticket(HALL)
    names.leave(lobby, 100)
    assert names.due(100 + LINGER) == []
    assert names.due(101 + LINGER) == [("SUNSUBSCRIBE", LOBBY)]
    names.leave(hall, 100)
    assert names.due(101 + LINGER) is None
    assert names.ticket(HALL).starts_reader


def test_after_a_reader_that_failed_the_next_ticket_starts_another_one() -> None:
    names = registry()
    names.ticket(LOBBY)
    names.reader_failed()
    assert [names.ticket(LOBBY).starts_reader for _ in range(2)] == [True, False]


def test_a_connection_that_answers_no_ping_is_dead() -> None:
    names = registry()
    assert names.quiet() == [("PING",)]
    names.heard(b"PONG")
    assert names.quiet() == [("PING",)]
    with pytest.raises(RedisTimeoutError):
        names.quiet()
    names.connected()
    assert names.quiet() == [("PING",)]


@pytest.mark.parametrize(
    ("error", "in_cluster", "woken", "refused"),
    [
        (OUTAGE, False, False, False),  # the pool finds the successor
        (OUTAGE, True, True, False),
        (MovedError("1 host:1"), True, True, False),
        (NoPermissionError("no"), False, True, True),
        (NoPermissionError("no"), True, True, True),
    ],
)
def test_the_end_of_a_connection_wakes_whose_name_may_be_elsewhere_or_was_refused(
    error: Exception,
    in_cluster: bool,  # noqa: FBT001  a table
    woken: bool,  # noqa: FBT001  a table
    refused: bool,  # noqa: FBT001  a table
) -> None:
    names = registry(in_cluster=in_cluster)
    ticket = names.ticket(LOBBY)
    names.disconnected(error)
    assert ticket.event.is_set() == woken
    assert names.connected() == ([] if woken else [("SSUBSCRIBE", LOBBY)])
    if refused:
        with pytest.raises(NoPermissionError):
            ticket.raise_refused()
    else:
        ticket.raise_refused()


def test_closing_wakes_all_and_lets_nobody_wait() -> None:
    names = registry()
    ticket = names.ticket(LOBBY)
    names.close()
    assert ticket.event.is_set()
    assert names.due(0) is None
    with pytest.raises(ChatClosedError):
        names.ticket(LOBBY)


@contextmanager
def no_thread_starts(name: str) -> Iterator[None]:
    """Refuse to start threads of a name, as a process does that may have no more."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == name:
            message = "can't start new thread"
            raise RuntimeError(message)
        start(thread)

    with pytest.MonkeyPatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        yield


def test_a_process_without_threads_left_waits_again_when_it_has_some(server: Server) -> None:
    with Chat.from_url(server.url) as chat:
        chat.check_messages("bob", "lobby")
        with no_thread_starts("chat-wake-ups"), pytest.raises(RuntimeError):
            chat.check_messages("bob", "lobby", wait=1)
        waiter = Waiter(lambda: chat.check_messages("bob", "lobby", wait=9))
        (subscription,) = chat._transport._wake_ups._subscriptions.values()
        eventually(lambda: subscription._connection)
        chat.send_message("lobby", "hi")
        assert [message.body for message in waiter.result()] == ["hi"]


@pytest.mark.parametrize("limit", [1, 3])
def test_a_check_whose_thread_did_not_start_is_never_made_and_keeps_no_later_one_from_its_thread(limit: int) -> None:
    checks, made = CheckThreads(limit), []
    with no_thread_starts("chat-check"), pytest.raises(RuntimeError):
        checks.run(1, made.append, "refused")
    checks.run(9, made.append, "asked for later")
    assert made == ["asked for later"]


def test_a_queued_check_whose_caller_a_signal_ended_is_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    checks, made, hold = CheckThreads(1), [], threading.Event()
    holder = Waiter(lambda: checks.run(20, hold.wait))
    eventually(lambda: checks._threads and checks._jobs.empty())
    with monkeypatch.context() as signalled:
        signalled.setattr(Future, "result", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            checks.run(20, made.append, "interrupted")
    hold.set()
    holder.result()
    checks.run(20, made.append, "asked for later")
    assert made == ["asked for later"]
