"""One channel that gets its archived messages back."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from itertools import chain, takewhile
from typing import TYPE_CHECKING

from redis.exceptions import OutOfMemoryError

from chat import ChatFullError
from chat.store.entries import sent_ms_of, time_of
from chat.store.keys import decode_name
from chat.store.nodes import Command, raise_first, run_all
from tasks.archive.rows import blocks, merged
from tasks.archive.scripts import BEGIN, FOLLOW, PEEK_BEGIN, PEEK_FOLLOW, STORED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from datetime import date

    from chat.store.keys import Keys
    from chat.store.nodes import Client
    from tasks.archive.reader import Slice
    from tasks.archive.rows import Row

__all__ = ["ChannelRestore", "Restored"]

GAP = "the ids between are not in the archive"
GIVEN = "later ids of the channel are not in the archive"
ASKED = "later ids of the channel were not asked for"
UNSURE = "only a real run can tell whether these ids follow the restored ones"
OTHER = "their ids mean other messages here"
CHANGED = "the channel changed meanwhile, or a key of it was lost: do it again"


@dataclass(slots=True)
class Restored:
    """The messages that came back of a channel.

    Attributes:
        channel: name of the channel.
        first: id of the oldest message that was put back, or 0.
        last: id of the newest.
        messages: number of messages that were put back.
        stored: archived messages that were there already.
        left: archived messages that were skipped, since they lie beyond a gap or belong to other ids.
        reason: why the first of these was skipped.
    """

    channel: str
    first: int = 0
    last: int = 0
    messages: int = 0
    stored: int = 0
    left: int = 0
    reason: str = ""


class ChannelRestore:
    """A channel that gets its messages back, from the newest down.

    Args:
        client: client of the chat's Redis.
        keys: names of the chat's keys.
        name: name of the channel.
        days: days on which the wanted messages were sent; none for all.
        dry_run: whether to change nothing.

    Attributes:
        restored: the messages that came back so far.
        is_gone: whether nothing of the channel was stored.
    """

    def __init__(self, client: Client, keys: Keys, name: bytes, days: Collection[date], *, dry_run: bool) -> None:
        self.restored = Restored(decode_name(name))
        self._client, self._name, self._days, self._dry_run = client, name, days, dry_run
        shard = keys.shard_of(name)
        indexes = keys.of_shard(shard, "updated", "sizes", "heads", "polled", "trimmed", "meta")
        self._keys = keys.of_channels(shard, [name], "log") + indexes
        self._begin, self._follow = (PEEK_BEGIN, PEEK_FOLLOW) if dry_run else (BEGIN, FOLLOW)
        base, size, epoch, unsure, self._floor = STORED(client, self._keys, (name,))
        self._base = base  # id of the newest message that is not stored; None where the channel is gone
        self._top = (base or 0) + size  # and of the newest that is
        self._epoch = str(epoch, "ascii")
        self.is_gone = base is None
        self._unsure = unsure  # up to this id, others may have been removed

    def put_back(self, slices: list[Slice]) -> None:
        """Put back what follows on what is stored. Messages beyond a gap are skipped and counted."""
        by_epoch: dict[str, list[Slice]] = defaultdict(list)
        for slice_ in slices:
            by_epoch[slice_.epoch].append(slice_)
        newest = {epoch: max(slice_.kept_ms for slice_ in of_epoch) for epoch, of_epoch in by_epoch.items()}
        epochs = sorted(by_epoch, key=lambda epoch: (epoch == self._epoch, newest[epoch]), reverse=True)
        rows = [merged(by_epoch[epoch]) for epoch in epochs]
        firsts = [next(of_epoch) for of_epoch in rows]
        # An archive without an epoch cannot prove that it has the last ids.
        begin = self._base is None and max(firsts, key=lambda row: sent_ms_of(row[1])) == firsts[0]
        for epoch, first, of_epoch in zip(epochs, firsts, rows, strict=True):
            if self._dry_run and self.restored.messages:
                self._leave(sum(self._is_wanted(entry) for _, entry in chain([first], of_epoch)), UNSURE)
            else:
                self._join(first, of_epoch, known=epoch == self._epoch != "", begin=begin)
            begin = False

    def _join(self, newest: Row, rows: Iterator[Row], *, known: bool, begin: bool) -> None:
        """Put back messages of one epoch.

        Args:
            newest: id and entry of the newest message.
            rows: ids and entries of the others, newest first.
            known: whether the channel's ids are of that epoch; otherwise the messages count only where one of them is
                stored.
            begin: whether the channel is gone, and may begin with the newest of them.
        """
        # Messages stay out in four cases: they lie beyond a gap, their ids were given again, later ids of a removed
        # channel are not in the archive, or the archive is from before Redis was emptied (another epoch).
        above = OTHER if self._base is not None else ASKED if begin else GIVEN
        begin = begin and self._is_wanted(newest[1])
        joins, stored_down_to, epoch = True, 0, self._epoch if known else ""
        ids = range(1 if epoch else self._unsure + 1, (newest[0] if begin else self._top) + 1)
        for last_id, block in blocks(self._within(chain([newest], rows), ids, above)):
            last = last_id
            may_write = known or begin or last > (self._base or 0) or last == stored_down_to
            reason = self._reason(last, begin=begin, known=known)
            write = partial(self._write, begin=begin, epoch=epoch, stored_down_to=stored_down_to)
            stored = joins and may_write and write(last, block)
            if joins and not stored and epoch and self._base is not None and last > self._base:
                last = self._leave_given_again(last, block)
                stored = bool(block) and write(last, block)
                joins = stored or last > self._base
            else:
                joins = stored
            if stored:
                stored_down_to = self._count(last, len(block))
                known, begin = known or begin, False
            else:
                self._leave(len(block), reason)

    def _leave_given_again(self, last: int, block: list[bytes]) -> int:
        """Take the messages from a block whose ids were given again; return the id of the last one that is left."""
        given_again = len(block) - self._same(last, block)
        self._leave(given_again, OTHER)
        del block[len(block) - given_again :]
        return last - given_again

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

    def _within(self, rows: Iterable[Row], ids: range, above: str) -> Iterator[Row]:
        """Yield the messages that are wanted and have these ids; others are skipped, those above for that reason."""
        for message_id, entry in rows:
            if not self._is_wanted(entry):
                continue
            if message_id in ids:
                yield message_id, entry
            else:
                self._leave(1, above if message_id >= ids.stop else OTHER)

    def _write(self, last: int, block: list[bytes], *, begin: bool, epoch: str, stored_down_to: int) -> bool:
        """Put messages back, and return whether they are there now; in a dry run, whether they would be."""
        if self._dry_run and last == stored_down_to == self._base:
            return True  # it would follow on the block before, which is not stored
        try:
            script = self._begin if begin else self._follow
            (joins,) = script(self._client, self._keys, (self._name, last, epoch, self._floor, *block))
        except OutOfMemoryError as error:
            message = "Redis is out of memory, what fitted in was restored: raise maxmemory, or restore fewer days"
            raise ChatFullError(message) from error
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
        """Return why messages are skipped."""
        if begin:
            return GIVEN if last < self._unsure else CHANGED
        if not known or self._base is None or last > self._base:
            return OTHER
        return GAP if last < self._base else CHANGED

    def _is_wanted(self, entry: bytes) -> bool:
        return not self._days or time_of(sent_ms_of(entry)).date() in self._days
