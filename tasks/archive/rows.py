"""The messages of a channel as an archive has them: rows of id and log entry, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chat.store.entries import sent_ms_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tasks.archive.reader import Slice

__all__ = ["Row", "blocks", "merged"]

MESSAGES, BYTES = 100, 1_000_000  # of a block, or one message

Row = tuple[int, bytes]


def merged(slices: list[Slice]) -> Iterator[Row]:
    """Yield the ids and entries of a channel, newest first, each id once.

    Slices overlap where a run was killed between hand-over and removal. Where a server lost its newest messages and
    gave their ids again, the later message counts.
    """
    ahead: dict[int, bytes] = {}
    for slice_ in slices:  # in the order of their newest ids
        for message_id in sorted((known for known in ahead if known > slice_.last), reverse=True):
            yield message_id, ahead.pop(message_id)
        entries = slice_.entries()
        for message_id, entry in enumerate(entries, slice_.last - len(entries) + 1):
            ahead[message_id] = max(entry, ahead.get(message_id, entry), key=sent_ms_of)
    yield from sorted(ahead.items(), reverse=True)


def blocks(rows: Iterable[Row]) -> Iterator[tuple[int, list[bytes]]]:
    """Yield what one call puts back: the id of its last message, and entries of ids without a gap, oldest first."""
    block: list[bytes] = []
    last = size = 0
    for message_id, entry in rows:
        if block and (message_id != last - len(block) or len(block) == MESSAGES or size + len(entry) > BYTES):
            yield last, block[::-1]
            block = []
        if not block:
            last, size = message_id, 0
        block.append(entry)
        size += len(entry)
    if block:
        yield last, block[::-1]
