"""How much is in the chat and what is overdue: a few calls, however many channels there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chat._keys import Keys
from chat._layout import confirm_shards
from chat._scripts import DUE
from chat.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["ShardStats", "read_stats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStats:
    """The state of one shard.

    Attributes:
        shard: its number.
        channels: that hold messages, or did until less than the channel timeout ago.
        clients: connected, each counted once per channel.
        idle: channels due to be removed.
        over_backlog: channels due to be trimmed by count.
        too_old: channels due to be trimmed by age.
        expired: channels where a client may have expired.
    """

    shard: int
    channels: int
    clients: int
    idle: int
    over_backlog: int
    too_old: int
    expired: int


def read_stats(client: Redis, *, settings: Settings | None = None) -> list[ShardStats]:
    """Return the state of each shard, in order.

    Raises:
        ShardsMismatchError: the data lies in another number of shards.
        redis.exceptions.ConnectionError: Redis cannot be reached.
    """
    settings = settings or Settings()
    keys = Keys(settings.prefix, settings.shards)
    confirm_shards(client, keys, fix=False)
    pipeline = client.pipeline(transaction=False)
    for shard in range(settings.shards):
        updated, meta = keys.of_shard(shard, "updated", "meta")
        pipeline.zcard(updated)
        pipeline.hget(meta, "clients")
    sizes = pipeline.execute()
    idle = _due(client, keys, "updated", "age", settings.channel_timeout * 1000)
    over_backlog = _due(client, keys, "sizes", "size", settings.backlog)
    too_old = _due(client, keys, "heads", "age", settings.message_timeout * 1000)
    expired = _due(client, keys, "polled", "age", settings.client_timeout * 1000)
    return [
        ShardStats(
            shard=shard,
            channels=sizes[2 * shard],
            clients=max(0, int(sizes[2 * shard + 1] or 0)),  # approximate after a key was lost
            idle=idle[shard],
            over_backlog=over_backlog[shard],
            too_old=too_old[shard] if settings.message_timeout else 0,
            expired=expired[shard],
        )
        for shard in range(settings.shards)
    ]


def _due(client: Redis, keys: Keys, index: str, by: str, limit: float) -> list[int]:
    """Return for each shard how many channels are due by an index, see due.lua."""
    look = (by, round(limit), 0, 0, "", 0)
    calls = [(keys.of_shard(shard, index, "lease:none"), look) for shard in range(keys.shards)]
    return [reply[0] for reply in DUE.many(client, calls)]
