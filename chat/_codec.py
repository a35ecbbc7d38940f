"""Decode what the scripts reply; encode and decode cursors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from zlib import crc32

from chat._errors import InvalidCursorError
from chat._values import Check, Presence
from chat.store.arguments import shown
from chat.store.entries import decode_slice, time_of
from chat.store.keys import decode_name

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["decode_check", "decode_cursor", "decode_presence"]

# epoch, channel, time and id of the last message read
CURSOR = re.compile(r"([0-9a-f]{12})-([0-9a-f]{8})-([0-9]{1,15})-([0-9]{1,15})", re.ASCII)


def decode_check(channel: bytes, reply: list[Any]) -> Check:
    """Return the check of ``check.lua``'s reply."""
    epoch, new, missed, more, position, sent_ms, *entries = reply
    messages = decode_slice(position, *entries)
    cursor = f"{str(epoch, 'ascii')}-{crc32(channel):08x}-{sent_ms}-{position}"
    return Check(messages, new == 1, missed, more == 1, cursor)


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
