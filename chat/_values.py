"""The values that calls return: messages, checks, and who is connected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

__all__ = ["Check", "Message", "Presence"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a channel.

    Attributes:
        id: 1, 2, 3, ... in its channel; never used twice.
        sent_at: when Redis stored it, by the server's clock (aware, UTC, to the millisecond).
        body: the JSON value that was sent.
    """

    id: int
    sent_at: datetime
    body: Any


@dataclass(frozen=True, slots=True)
class Check:
    """The messages that a client had not read yet. Iteration, ``len()`` and truth are those of the messages.

    Attributes:
        messages: oldest first.
        new: this client was not known here, or comes from another history of the channel.
        missed: messages removed before this client read them.
        more: stored messages are waiting, beyond the limit or beyond the 1 MB or so of one reply.
        cursor: where the client now stands, for ``after``; opaque.
    """

    messages: tuple[Message, ...]
    new: bool
    missed: int
    more: bool
    cursor: str

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    def __len__(self) -> int:
        return len(self.messages)


@dataclass(frozen=True, slots=True)
class Presence:
    """One client that is connected to a channel.

    Attributes:
        client: its name.
        checked_at: when it last checked, by the server's clock (aware, UTC, to the millisecond).
        position: id of the message it has read up to.
    """

    client: str
    checked_at: datetime
    position: int
