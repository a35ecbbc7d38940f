"""Put archived messages back where they were: below what a channel has, under their own ids and times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chat import InvalidArgumentError
from chat import Settings as ChatSettings
from chat.store.arguments import shown
from chat.store.keys import Keys, decode_name
from chat.store.shards import confirm_shards
from tasks.archive.channel import ChannelRestore, Restored
from tasks.archive.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import date
    from pathlib import Path

    from chat.store.nodes import Client

__all__ = ["NothingSentError", "restore"]


class NothingSentError(InvalidArgumentError):
    """Raised when an archive has no messages of the days that were asked for."""


def restore(
    client: Client,
    folder: Path,
    *,
    channels: Collection[str] = (),
    days: Collection[date] = (),
    dry_run: bool = False,
    settings: ChatSettings | None = None,
) -> list[Restored]:
    """Read an archive back into Redis, newest messages first.

    The clients of a channel keep their positions: a client that had not read a message gets it. A channel that is
    gone comes back with its ids and goes on above all it was ever given; where the archive lacks the last of them, it
    stays gone.
    What is stored already is passed over, so a restore may be repeated. A channel that is asked for by name is returned
    also where none of its messages are of these days.

    Args:
        client: a redis-py client.
        folder: the folder that ``CHAT_ARCHIVE`` named; nothing is written into it.
        channels: names of channels, none for all.
        days: days in UTC on which the messages were sent, none for all.
        dry_run: whether to change nothing and return what would come back; a user of Redis that may only read is
            enough.
        settings: prefix and shards; None for ``Settings()``.

    Raises:
        InvalidArgumentError: there is no archive, or it has nothing of a channel: nothing was restored; or it is
            damaged: what came before the damage was restored.
        ChatFullError: Redis is out of memory; what fitted in was restored.
    """
    settings = settings or ChatSettings()
    keys = Keys(settings.prefix, settings.shards)
    found: list[Restored] = []
    with Reader(folder) as archive:
        names = {decode_name(name): name for name in archive.channels()}
        if missing := sorted(set(channels) - names.keys()):
            message = f"the archive in {folder} has nothing of channel {shown(missing[0])}, must be a name in it"
            raise InvalidArgumentError(message)
        confirm_shards(client, keys, create=not dry_run)
        for channel, name in names.items():
            if not channels or channel in channels:
                putting = ChannelRestore(client, keys, name, set(days), dry_run=dry_run)
                putting.put_back(archive.slices(name, anew=putting.is_gone))
                found.append(putting.restored)
    if not channels:
        found = [channel for channel in found if channel.messages or channel.stored or channel.left]
    if days and not found:
        message = f"no archive in {folder} of these days, must be days on which archived messages were sent"
        raise NothingSentError(message)
    return found
