"""Put archived messages back where they were: below what a channel has, under their own ids and times."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import chain, takewhile
from typing import TYPE_CHECKING

from redis.exceptions import OutOfMemoryError

from chat import InvalidArgumentError
from chat.store.arguments import shown
from chat.store.entries import sent_ms_of, time_of
from chat.store.keys import Keys, decode_name
from chat.store.layout import confirm_shards
from chat.store.nodes import Command, raise_first, run_all
from chat.store.scripts import Script, out_of_memory
from tasks.archive.reader import Reader
from tasks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from chat.store.nodes import Client
    from tasks.archive.reader import Slice

__all__ = ["Restored", "restore"]

RESTORE = Script("restore", package=__name__.rpartition(".")[0])

TOGETHER, LARGEST = 100, 1_000_000  # messages, and bytes or one message, that one call puts back
GAP = "the ids between are not in the archive"
GIVEN = "later ids of the channel are not in the archive"
ASKED = "later ids of the channel were not asked for"
UNSURE = "only a run tells whether they join on to what would come back"
OTHER = "their ids mean other messages here"
CHANGED = "the channel changed meanwhile, or a key of it was lost: do it again"


@dataclass(slots=True)
class Restored:
    """What came back of a channel.

    Attributes:
        channel: its name.
        first: id of the oldest message that was put back, or 0.
        last: id of the newest.
        messages: that were put back.
        stored: archived messages that were there already.
        left: archived messages that do not join on to what is there.
        reason: why the first of these does not.
    """

    channel: str
    first: int = 0
    last: int = 0
    messages: int = 0
    stored: int = 0
    left: int = 0
    reason: str = ""


def restore(
    client: Client,
    folder: Path,
    *,
    channels: Collection[str] = (),
    days: Collection[str] = (),
    dry_run: bool = False,
    settings: Settings | None = None,
) -> list[Restored]:
    """Read an archive back into Redis, newest messages first.

    The clients of a channel keep their positions: who had not read a message gets it. A channel that is gone comes
    back with its ids and goes on above all it was ever given; where the archive lacks the last of them, it stays gone.
    What is stored already is passed over, so a restore may be repeated.

    Args:
        client: a redis-py client.
        folder: that ``CHAT_ARCHIVE`` named; nothing is written into it.
        channels: names, none for all.
        days: such as ``2026-11-24``, in UTC, on which messages were sent; none for all.
        dry_run: say what would come back, change nothing.
        settings: prefix and shards; None for ``Settings()``.

    Raises:
        InvalidArgumentError: there is no archive, or it is damaged; what came before the damage was restored.
        ChatFullError: Redis is out of memory; what fitted in was restored.
    """
    settings = settings or Settings()
    keys = Keys(settings.prefix, settings.shards)
    wanted = {_day(day) for day in days}
    found: list[Restored] = []
    with Reader(folder) as archive:
        confirm_shards(client, keys, create=not dry_run)
        for name in archive.channels():
            if not channels or decode_name(name) in channels:
                channel = _Channel(client, keys, name, wanted, dry_run=dry_run)
                channel.put_back(archive.slices(name))
                found.append(channel.restored)
    found = [channel for channel in found if channel.messages or channel.stored or channel.left]
    if missing := sorted(set(channels) - {channel.channel for channel in found}) if channels else []:
        of_days = " of these days" if days else ""
        message = f"the archive in {folder} has nothing{of_days} of channel {shown(missing[0])}, must be a name in it"
        raise InvalidArgumentError(message)
    if days and not found:
        message = f"no archive in {folder} of these days, must be days on which archived messages were sent"
        raise InvalidArgumentError(message)
    return found


class _Channel:
    """A channel that gets its messages back, from the newest down."""

    def __init__(self, client: Client, keys: Keys, name: bytes, days: Collection[date], *, dry_run: bool) -> None:
        self.restored = Restored(decode_name(name))
        self._client, self._name, self._days, self._dry_run = client, name, days, dry_run
        shard = keys.shard_of(name)
        indexes = keys.of_shard(shard, "updated", "sizes", "heads", "polled", "trimmed", "meta")
        self._keys = keys.of_channels(shard, [name], "log") + indexes
        log, *_, trimmed, meta = self._keys
        commands = [
            Command(trimmed, ("HGET", trimmed, name)),
            Command(log, ("LLEN", log)),
            Command(meta, ("HMGET", meta, "epoch", "floor", "unkept")),
        ]
        base, size, (epoch, floor, unkept) = raise_first(run_all(client, commands))
        self._base = None if base is None else int(base)  # id of the newest message that is not stored
        self._top = int(base or 0) + size  # and of the newest that is
        self._epoch = str(epoch or b"", "ascii")
        given = min(int(floor or 0), int(unkept or floor or 0))  # as in restore.lua
        self._unsure = given if base is None else min(given, int(base))  # up to this id, others may have been removed

    def put_back(self, slices: list[Slice]) -> None:
        """Put back what joins on to what is there, and count what does not."""
        by_epoch: dict[str, list[Slice]] = defaultdict(list)
        for slice_ in slices:
            by_epoch[slice_.epoch].append(slice_)
        newest = {epoch: max(slice_.kept_ms for slice_ in of_epoch) for epoch, of_epoch in by_epoch.items()}
        epochs = sorted(by_epoch, key=lambda epoch: (epoch == self._epoch, newest[epoch]), reverse=True)
        rows = [_rows(by_epoch[epoch]) for epoch in epochs]
        firsts = [next(of_epoch) for of_epoch in rows]
        # What was sent after the newest of that epoch may have been given later ids: a version that notes no epoch ran.
        begin = self._base is None and max(firsts, key=_sent_ms) == firsts[0]
        for epoch, first, of_epoch in zip(epochs, firsts, rows, strict=True):
            if self._dry_run and self.restored.messages:
                self._leave(sum(self._is_wanted(entry) for _, entry in chain([first], of_epoch)), UNSURE)
            else:
                self._join(first, of_epoch, known=epoch == self._epoch != "", begin=begin)
            begin = False

    def _join(self, newest: tuple[int, bytes], rows: Iterator[tuple[int, bytes]], *, known: bool, begin: bool) -> None:
        """Put back messages of one epoch.

        Args:
            newest: id and entry of the newest.
            rows: those of the others, newest first.
            known: the channel's ids are of that epoch; otherwise they join on only where one of them is stored.
            begin: the channel is gone, and may begin with the newest of them.
        """
        above = OTHER if self._base is not None else ASKED if begin else GIVEN
        begin = begin and self._is_wanted(newest[1])
        joins, follows, foreign = True, 0, not known
        ids = range(self._unsure + 1 if foreign else 1, (newest[0] if begin else self._top) + 1)
        for last_id, block in self._blocks(chain([newest], rows), ids, above):
            last = last_id
            vouched = known or begin or last > (self._base or 0) or last == follows
            reason = self._reason(last, begin=begin, known=known)
            write = partial(self._write, begin=begin, foreign=foreign, follows=follows)
            stored = joins and vouched and write(last, block)
            if joins and not stored and not foreign and self._base is not None and last > self._base:
                given_again = len(block) - self._same(last, block)
                self._leave(given_again, OTHER)
                last -= given_again
                del block[len(block) - given_again :]
                stored = bool(block) and write(last, block)
                joins = stored or last > self._base
            else:
                joins = stored
            if stored:
                follows = self._count(last, len(block))
                known, begin = known or begin, False
            else:
                self._leave(len(block), reason)

    def _same(self, last: int, block: list[bytes]) -> int:
        """Return how many of the messages, all of this epoch, there are up to the newest that is the same here.

        After a snapshot came back, the server gave the ids from then on again. Up to the last message that is the same
        in both histories, all are; where none that is stored is, nothing tells.
        """
        base, log = self._base or 0, self._keys[0]
        below = max(base - last + len(block), 0)  # so many are not stored
        start = last - len(block) + below - base
        (stored,) = raise_first(run_all(self._client, [Command(log, ("LRANGE", log, start, last - base - 1))]))
        pairs = zip(block[below:], stored, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        return below + same if same else 0

    def _blocks(self, rows: Iterable[tuple[int, bytes]], ids: range, above: str) -> Iterator[tuple[int, list[bytes]]]:
        """Yield what one call takes: the id of its last message, and entries of ids without a gap, oldest first.

        Messages with other ids than `ids` are left, those above for that reason.
        """
        block: list[bytes] = []
        last = size = 0
        for message_id, entry in rows:
            if not self._is_wanted(entry):
                continue
            if message_id not in ids:
                self._leave(1, above if message_id >= ids.stop else OTHER)
                continue
            if block and (message_id != last - len(block) or len(block) == TOGETHER or size + len(entry) > LARGEST):
                yield last, block[::-1]
                block = []
            if not block:
                last, size = message_id, 0
            block.append(entry)
            size += len(entry)
        if block:
            yield last, block[::-1]

    def _write(self, last: int, block: list[bytes], *, begin: bool, foreign: bool, follows: int) -> bool:
        """Put messages back, and return whether they are there now; in a dry run, whether they would be."""
        if self._dry_run and last == follows == self._base:
            return True  # it would join on to the block before, which is not there
        try:
            modes = int(begin), int(foreign), int(self._dry_run)
            (joins,) = RESTORE(self._client, self._keys, (self._name, last, *modes, *block))
        except OutOfMemoryError as error:
            raise out_of_memory() from error
        return bool(joins)

    def _count(self, last: int, count: int) -> int:
        """Count messages that are there now; return the id below them."""
        if self._base is None:
            self._base = self._top = last
        below, done = last - count, self.restored
        missing = max(0, min(last, self._base) - below)
        done.stored += count - missing
        if missing:
            done.last = done.last or below + missing
            done.first = below + 1
            done.messages += missing
            self._base = below
        return below

    def _leave(self, count: int, reason: str) -> None:
        self.restored.left += count
        self.restored.reason = self.restored.reason or reason

    def _reason(self, last: int, *, begin: bool, known: bool) -> str:
        """Return why messages would not join on."""
        if begin:
            return GIVEN
        if not known or self._base is None or last > self._base:
            return OTHER
        return GAP if last < self._base else CHANGED

    def _is_wanted(self, entry: bytes) -> bool:
        return not self._days or time_of(sent_ms_of(entry)).date() in self._days


def _rows(slices: list[Slice]) -> Iterator[tuple[int, bytes]]:
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


def _sent_ms(row: tuple[int, bytes]) -> int:
    return sent_ms_of(row[1])


def _day(day: str) -> date:
    try:
        return date.fromisoformat(day)
    except (TypeError, ValueError):
        message = f"day is {day!r}, must be a date such as 2026-11-24"
        raise InvalidArgumentError(message) from None
