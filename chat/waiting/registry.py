"""Who waits for which name on one server. No I/O, no clock, no lock: threads hold a lock around each call.

A send publishes to the name of its channel's log. A waiter takes a ticket, checks, and then waits for the ticket's
event: a publication after the ticket was taken sets it. The subscribe confirmation sets it too, because earlier sends
were not heard. A name whose subscription ends is dropped and its waiters are woken: they check and take a new ticket.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from redis.exceptions import ResponseError

__all__ = ["LINGER", "QUIET", "RECONNECT", "Registry", "Ticket"]

QUIET = 5  # seconds without a reply until the server is asked for one, and again until the connection is given up
LINGER = 5  # seconds that a name without waiters stays subscribed: they mostly come back
RECONNECT = 0.2  # seconds


@dataclass(eq=False, slots=True)
class _Name:
    """A subscribed name: its next event, and who waits for it."""

    event: Any
    waiters: int = 0
    left_at: float = 0
    refused: ResponseError | None = None


@dataclass(frozen=True, slots=True)
class Ticket:
    """The moment that a wait begins from.

    Attributes:
        event: set when the name is notified after that moment; ``threading.Event`` or ``asyncio.Event``.
        fresh: nobody waited for the name before; it is to be subscribed.
    """

    event: Any
    fresh: bool
    _name: _Name

    def raise_refused(self) -> None:
        """Raise Redis's refusal to subscribe, if there was one."""
        if self._name.refused:
            raise self._name.refused

    def leave(self, now: float) -> None:
        """Wait no longer."""
        self._name.waiters -= 1
        self._name.left_at = now


class Registry:
    """The names that are waited for on one server.

    Args:
        make_event: ``threading.Event`` or ``asyncio.Event``.
    """

    def __init__(self, make_event: Callable[[], Any]) -> None:
        self._make_event = make_event
        self._names: dict[bytes, _Name] = {}

    @property
    def names(self) -> list[bytes]:
        """All names."""
        return list(self._names)

    def ticket(self, name: bytes) -> Ticket:
        """Begin to wait for a name; every ticket is left again."""
        fresh = name not in self._names
        if fresh:
            self._names[name] = _Name(self._make_event())
        known = self._names[name]
        known.waiters += 1
        return Ticket(known.event, fresh, known)

    def heard(self, reply: Any) -> None:
        """Take a reply of the subscribed connection: a publication, a confirmation, or the end of a subscription."""
        kind, name = reply[:2] if isinstance(reply, list) else (reply, b"")
        if kind == b"sunsubscribe":
            self.drop([name])  # asked for, or its slot went to another server
        elif name in self._names:
            self._notify(self._names[name])

    def idle(self, now: float) -> list[bytes]:
        """Drop and return the names that nobody has waited for since LINGER seconds."""
        idle = [name for name, known in self._names.items() if not known.waiters and known.left_at < now - LINGER]
        self.drop(idle)
        return idle

    def drop(self, names: Iterable[bytes], refused: ResponseError | None = None) -> None:
        """End the subscription of names and wake their waiters, with Redis's refusal where there is one."""
        for name in names:
            if known := self._names.pop(name, None):
                known.refused = refused
                self._notify(known)

    def _notify(self, known: _Name) -> None:
        known.event.set()
        known.event = self._make_event()
