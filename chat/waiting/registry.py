"""A registry of the waiters on one server, by name. No I/O, no clock; thread-safe.

A send publishes to the name of its channel's log. A waiter takes a ticket, checks, and then waits for the ticket's
event: a publication after the ticket was taken sets it. The subscribe confirmation sets it too, because earlier sends
were not heard. A name whose subscription ends is dropped and its waiters are woken: they check and take a new ticket.

One reader, a thread or a task, owns the connection and lives while a name is registered.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import MovedError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chat._errors import ChatClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["QUIET", "RECONNECT", "Commands", "Registry", "Ticket"]

QUIET = 5  # seconds without a reply until the server is asked for one, and again until the connection is given up
LINGER = 5  # seconds that a name without waiters stays subscribed: they mostly come back
RECONNECT = 0.2  # seconds

Commands = list[tuple[str | bytes, ...]]


@dataclass(eq=False, slots=True)
class _Name:
    """A subscribed name: its next event, and who waits for it."""

    event: Any
    waiters: int = 0
    left_at: float = 0
    refused: Exception | None = None


@dataclass(frozen=True, slots=True)
class Ticket:
    """The moment that a wait begins from.

    Attributes:
        event: set when the name is notified after that moment; ``threading.Event`` or ``asyncio.Event``.
        commands: subscribe to the name, which nobody waited for before; else empty.
        starts_reader: there is no reader; the holder starts one.
        name: the registry's record of the name.
    """

    event: Any
    commands: Commands
    starts_reader: bool
    name: _Name

    def raise_refused(self) -> None:
        """Raise Redis's refusal to subscribe, if there was one."""
        if self.name.refused:
            raise self.name.refused


class Registry:
    """The names that are waited for on one server.

    Args:
        make_event: ``threading.Event`` or ``asyncio.Event``.
        in_cluster: names may move to another server, so their waiters have to look where they are after an outage.
            Otherwise the reader connects anew; a pool of Sentinel's finds the new primary.
    """

    def __init__(self, make_event: Callable[[], Any], *, in_cluster: bool) -> None:
        self._make_event, self._in_cluster = make_event, in_cluster
        self._lock = threading.RLock()
        self._names: dict[bytes, _Name] = {}
        self._reading = self._closed = self._pinged = False

    def ticket(self, name: bytes) -> Ticket:
        """Begin to wait for a name; every ticket is left again.

        Raises:
            ChatClosedError: nobody is to wait any more.
        """
        with self._lock:
            if self._closed:
                raise ChatClosedError
            commands: Commands = []
            if name not in self._names:
                self._names[name] = _Name(self._make_event())
                commands = _commands("SSUBSCRIBE", [name])
            known = self._names[name]
            known.waiters += 1
            starts_reader, self._reading = not self._reading, True
            return Ticket(known.event, commands, starts_reader, known)

    def leave(self, ticket: Ticket, now: float) -> None:
        """Wait no longer."""
        with self._lock:
            ticket.name.waiters -= 1
            ticket.name.left_at = now

    def close(self) -> None:
        """Wake all waiters; the reader ends, and none begins."""
        with self._lock:
            self._closed = True
            self._drop(list(self._names))

    def connected(self) -> Commands:
        """Return what a new connection is to send first."""
        with self._lock:
            self._pinged = False
            return _commands("SSUBSCRIBE", self._names)

    def heard(self, reply: Any) -> None:
        """Take a reply of the connection: a publication, a confirmation, or the end of a subscription."""
        kind, name = reply[:2] if isinstance(reply, list) else (reply, b"")
        with self._lock:
            self._pinged = False
            if kind == b"sunsubscribe":
                self._drop([name])  # asked for, or its slot went to another server
            elif name in self._names:
                self._notify(self._names[name])

    def quiet(self) -> Commands:
        """Return what to send after QUIET seconds without a reply.

        Raises:
            redis.exceptions.TimeoutError: that was sent already; the connection is dead.
        """
        with self._lock:
            if self._pinged:
                raise RedisTimeoutError
            self._pinged = True
            return [("PING",)]

    def due(self, now: float) -> Commands | None:
        """Return what to send now, None when nobody waits and the reader ends.

        Names that nobody has waited for since LINGER seconds are dropped.
        """
        with self._lock:
            idle = [name for name, known in self._names.items() if not known.waiters and known.left_at < now - LINGER]
            self._drop(idle)
            self._reading = bool(self._names)
            return _commands("SUNSUBSCRIBE", idle) if self._reading else None

    def disconnected(self, error: Exception) -> None:
        """Decide what the end of a connection means for the waiters.

        When Redis refused to subscribe, for want of a permission say, they raise that. When the slot or its server may
        have moved, they look for it.
        """
        with self._lock:
            if isinstance(error, ResponseError) and not isinstance(error, MovedError):
                self._drop(list(self._names), error)
            elif isinstance(error, MovedError) or self._in_cluster:
                self._drop(list(self._names))

    def reader_failed(self) -> None:
        """Note that the reader could not start, or ended by a fault: the next ticket starts another one."""
        with self._lock:
            self._reading = False

    def _drop(self, names: Iterable[bytes], refused: Exception | None = None) -> None:
        """End the subscription of names and wake their waiters, with Redis's refusal where there is one."""
        for name in names:
            if known := self._names.pop(name, None):
                known.refused = refused
                self._notify(known)

    def _notify(self, known: _Name) -> None:
        known.event.set()
        known.event = self._make_event()


def _commands(word: str, names: Iterable[bytes]) -> Commands:
    """Return a command for each name: on a cluster the names of one command must share a slot."""
    return [(word, name) for name in names]
