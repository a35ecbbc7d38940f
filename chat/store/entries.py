"""The stored form of a message: an entry of its channel's log, ``<sent ms>:<json>``."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from itertools import count
from typing import Any

from chat._errors import InvalidArgumentError, MessageTooLongError
from chat._values import Message
from chat.store.keys import decode_text, encode_text

__all__ = [
    "STAMP",
    "UNREADABLE",
    "canonical",
    "decode_entry",
    "decode_slice",
    "encode_body",
    "encode_entry",
    "is_entry",
    "sent_ms_of",
    "time_of",
]

STAMP = 14  # bytes before the body in an entry of a log
LATEST = 2**43  # ms since 1970 that a message may be stamped with: in the year 2248
UNREADABLE = (
    ValueError,
    ArithmeticError,
    OSError,
    RecursionError,
)  # raised by decoding an entry of others
MAX_DEPTH = 100  # a body that its sender can nest, every reader must be able to parse, from any stack depth

_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_dumps_sorted = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode
_loads = json.JSONDecoder().decode


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


def decode_entry(message_id: int, entry: bytes) -> Message:
    """Return the message of a log entry, ``<sent ms>:<json>``."""
    sent_ms, _, body = entry.partition(b":")
    return Message(message_id, time_of(int(sent_ms)), _loads(decode_text(body)))


def decode_slice(last: int, *entries: bytes) -> tuple[Message, ...]:
    """Return the messages of entries of a log, of which the last has that id."""
    return tuple(map(decode_entry, count(last - len(entries) + 1), entries))


def is_entry(entry: bytes) -> bool:
    """Return whether a log entry is one that a send may have stored."""
    sent_ms, _, body = entry.partition(b":")
    try:
        encoded = encode_body(_loads(decode_text(body)), len(body))
        return b"%d:%s" % (int(sent_ms), encoded) == entry and 0 <= int(sent_ms) < LATEST
    except UNREADABLE:
        return False


def sent_ms_of(entry: bytes) -> int:
    """Return the time of a log entry."""
    return int(entry.partition(b":")[0])


def time_of(sent_ms: int) -> datetime:
    """Return a time in ms since 1970 as an aware datetime."""
    return datetime.fromtimestamp(sent_ms / 1000, UTC)
