"""Put archived messages back where they were: below what a channel has, under their own ids and times."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from redis.exceptions import OutOfMemoryError

from chat._archive import Folder, read
from chat._errors import InvalidArgumentError
from chat._keys import Keys, encode_text
from chat._layout import confirm_shards
from chat._messages import encode_body
from chat._requests import full
from chat._scripts import RESTORE
from chat.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from chat._nodes import Client

__all__ = ["Restored", "restore"]

TOGETHER = 100  # messages that one call puts back
ENDLESS = 2**62  # bytes: what was stored once is not too long


@dataclass(slots=True)
class Restored:
    """What came back of a channel.

    Attributes:
        channel: its name.
        first: id of the oldest message that was put back, or 0.
        last: id of the newest.
        messages: that were put back.
        left: archived messages that were not, as the ids between them and the log are not in the archive.
    """

    channel: str
    first: int = 0
    last: int = 0
    messages: int = 0
    left: int = 0


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
    back with its ids and goes on above them. What is stored already is passed over, so a restore may be repeated.

    Args:
        client: a redis-py client.
        folder: that ``CHAT_ARCHIVE`` named.
        channels: names, none for all.
        days: such as ``2026-11-24``, none for all.
        dry_run: say what would come back, change nothing.
        settings: prefix and shards; None for ``Settings()``.

    Raises:
        InvalidArgumentError: there is no archive; nothing was restored.
        ChatFullError: Redis is out of memory; what fitted in was restored.
    """
    settings = settings or Settings()
    keys = Keys(settings.prefix, settings.shards)
    files = [path for path in Folder(folder).files() if not days or path.parent.name in days]
    if not files:
        message = f"no archive in {folder}{' of these days' if days else ''}, must be a folder that CHAT_ARCHIVE named"
        raise InvalidArgumentError(message)
    confirm_shards(client, keys, fix=not dry_run)
    found: dict[str, _Channel] = {}
    for path in files:
        rows = sorted(read(path), key=lambda row: (row["channel"], row["id"]))
        for name, of_channel in groupby(rows, key=lambda row: row["channel"]):
            if not channels or name in channels:
                channel = found.setdefault(name, _Channel(client, keys, name, dry_run=dry_run))
                channel.put_back({row["id"]: row for row in of_channel})
    return [channel.restored for channel in found.values()]


class _Channel:
    """A channel that gets its messages back, from the newest down."""

    def __init__(self, client: Client, keys: Keys, channel: str, *, dry_run: bool) -> None:
        self.restored = Restored(channel)
        self._client, self._name, self._dry_run = client, encode_text(channel), dry_run
        shard = keys.shard_of(self._name)
        names = ("updated", "sizes", "heads", "trimmed", "meta")
        self._keys = keys.of_channels(shard, [self._name], "log") + keys.of_shard(shard, *names)
        stored = client.hget(self._keys[4], self._name)
        self._base = None if stored is None else int(stored)

    def put_back(self, rows: dict[int, Any]) -> None:
        """Put back those that join on to what is there, and count those that do not."""
        if self._base is None:
            self._base = max(rows)
        while block := self._block(rows):
            if not self._dry_run:
                self._write(block)
            done = self.restored
            done.last, done.first = done.last or self._base, self._base - len(block) + 1
            done.messages += len(block)
            self._base -= len(block)
        self.restored.left += sum(message_id <= self._base for message_id in rows)

    def _block(self, rows: dict[int, Any]) -> list[bytes]:
        """Return the entries that end where the log begins, oldest first."""
        ids = range(self._base or 0, max(0, (self._base or 0) - TOGETHER), -1)
        return [_entry(rows[message_id]) for message_id in _run(ids, rows)][::-1]

    def _write(self, block: list[bytes]) -> None:
        try:
            done, *_ = RESTORE(self._client, self._keys, (self._name, self._base, *block))
        except OutOfMemoryError as error:
            raise full() from error
        if not done:
            message = f"channel {self.restored.channel!r} changed while it was restored: do it again"
            raise InvalidArgumentError(message)


def _run(ids: range, rows: dict[int, Any]) -> Iterator[int]:
    for message_id in ids:
        if message_id not in rows:
            return
        yield message_id


def _entry(row: dict[str, Any]) -> bytes:
    sent_ms = round(datetime.fromisoformat(row["sent_at"]).timestamp() * 1000)
    return b"%d:%s" % (sent_ms, encode_body(row["body"], ENDLESS))
