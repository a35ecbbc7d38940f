"""Messages and checks: what goes into Redis, what comes out, and what callers hold in their hands."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any
from zlib import crc32

from chat._arguments import shown
from chat._errors import InvalidArgumentError, InvalidCursorError, MessageTooLongError
from chat._keys import decode_name, decode_text, encode_text

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Check",
    "Message",
    "Presence",
    "canonical",
    "decode_check",
    "decode_cursor",
    "decode_history",
    "decode_presence",
    "decode_slice",
    "encode_body",
    "encode_entry",
    "is_entry",
    "sent_ms_of",
    "time_of",
]

LATEST = 2**43  # ms since 1970 that a message may be stamped with: in the year 2248
MAX_DEPTH = 100  # a body that its sender can nest, every reader must be able to parse, from any stack depth
# epoch, channel, time and id of the last message read
CURSOR = re.compile(r"([0-9a-f]{12})-([0-9a-f]{8})-([0-9]{1,15})-([0-9]{1,15})", re.ASCII)

_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_dumps_sorted = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode
_loads = json.JSONDecoder().decode


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
    """What a client had not read yet. Iteration, ``len()`` and truth are those of the messages.

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


def time_of(sent_ms: int) -> datetime:
    """Return a time in ms since 1970 as an aware datetime."""
    return datetime.fromtimestamp(sent_ms / 1000, UTC)


def encode_body(body: Any, max_bytes: int) -> bytes:
    """Return a body as compact JSON.

    Raises:
        InvalidArgumentError: it is not JSON, would come back as another value, or nests too deep.
        MessageTooLongError: it encodes to more than `max_bytes`.
    """
    try:
        encoded = encode_text(_dumps(body))
    except (TypeError, ValueError, RecursionError) as error:
        message = f"the body is not JSON: {error}"
        raise InvalidArgumentError(message) from None
    if len(encoded) > max_bytes:
        message = f"the body is {len(encoded)} bytes of JSON, must be at most {max_bytes}"
        raise MessageTooLongError(message)
    if encoded[:1] in b"[{":
        if _depth(encoded) > MAX_DEPTH:
            message = f"the body nests deeper than {MAX_DEPTH} levels"
            raise InvalidArgumentError(message)
        if _loads(decode_text(encoded)) != body:
            message = "the body would come back as another value: JSON has lists, no tuples, and only str keys"
            raise InvalidArgumentError(message)
    return encoded


def canonical(encoded: bytes) -> bytes:
    """Return an encoded body with the names of every object sorted: the same for bodies that are equal."""
    return encode_text(_dumps_sorted(_loads(decode_text(encoded)))) if encoded[:1] in b"[{" else encoded


def _depth(encoded: bytes) -> int:
    """Return how deep arrays and objects nest, or a little more where brackets stand in strings."""
    if encoded.count(b"[") + encoded.count(b"{") <= MAX_DEPTH:
        return 0
    deepest = depth = 0
    for byte in re.sub(rb'"(?:[^"\\]|\\.)*"', b"", encoded):
        depth += (byte in b"[{") - (byte in b"]}")
        deepest = max(deepest, depth)
    return deepest


def encode_entry(message: Message) -> bytes:
    """Return the log entry of a message, ``<sent ms>:<json>``.

    Raises:
        ValueError: it is none that can be sent.
    """
    sent_ms, body = round(message.sent_at.timestamp() * 1000), encode_text(_dumps(message.body))
    if not 0 <= sent_ms < LATEST or _depth(body) > MAX_DEPTH:
        problem = "not a message that can be sent"
        raise ValueError(problem)
    return b"%d:%s" % (sent_ms, body)


def sent_ms_of(entry: bytes) -> int:
    """Return the time of a log entry."""
    return int(entry.partition(b":")[0])


def is_entry(entry: bytes) -> bool:
    """Return whether a log entry is one that a send may have stored."""
    sent_ms, _, body = entry.partition(b":")
    try:
        encoded = encode_body(_loads(decode_text(body)), len(body))
        return b"%d:%s" % (int(sent_ms), encoded) == entry and 0 <= int(sent_ms) < LATEST
    except (ValueError, RecursionError):
        return False


def decode_entry(message_id: int, entry: bytes) -> Message:
    """Return the message of a log entry, ``<sent ms>:<json>``."""
    sent_ms, _, body = entry.partition(b":")
    return Message(message_id, time_of(int(sent_ms)), _loads(decode_text(body)))


def decode_check(channel: bytes, reply: list[Any]) -> Check:
    """Return the check of ``check.lua``'s reply."""
    epoch, new, missed, more, position, sent_ms, *entries = reply
    messages = tuple(map(decode_entry, count(position - len(entries) + 1), entries)) if entries else ()
    cursor = f"{str(epoch, 'ascii')}-{crc32(channel):08x}-{sent_ms}-{position}"
    return Check(messages, new == 1, missed, more == 1, cursor)


def decode_history(reply: list[Any]) -> tuple[Message, ...]:
    """Return the messages of ``history.lua``'s reply."""
    return decode_slice(*reply)


def decode_slice(last: int, *entries: bytes) -> tuple[Message, ...]:
    """Return the messages of entries of a log, of which the last has that id."""
    return tuple(map(decode_entry, count(last - len(entries) + 1), entries))


def decode_presence(page: list[Any]) -> Iterator[Presence]:
    """Yield the clients of a page of ``clients.lua``."""
    for name, checked_ms, position in zip(page[::3], page[1::3], page[2::3], strict=True):
        yield Presence(decode_name(name), time_of(int(float(checked_ms))), int(position))


def decode_cursor(channel: bytes, cursor: Any) -> str:
    """Return a cursor as ``check.lua`` takes it; with no epoch when it is another channel's, empty for None."""
    if cursor is None:
        return ""
    match = CURSOR.fullmatch(cursor) if isinstance(cursor, str) else None
    if match is None:
        was = "a check" if isinstance(cursor, Check) else shown(cursor)
        instead = "check.cursor" if isinstance(cursor, Check) else "the cursor of an earlier check, or None"
        message = f"after is {was}, must be {instead}"
        raise InvalidCursorError(message)
    epoch, of_channel, sent_ms, position = match.groups()
    return f"{epoch if int(of_channel, 16) == crc32(channel) else ''} {position} {sent_ms}"
