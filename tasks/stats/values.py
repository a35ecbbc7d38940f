"""The values of the stats: of the chat, of each sweep, of each shard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.cleaning.record import LastRun

__all__ = ["ShardStats", "Stats", "SweepStats"]

LATE = 0.5  # of its interval a sweep may be late: runs take time, and wait for a worker
LATE_SECONDS = 1.0  # but at least so long


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStats:
    """The state of one shard.

    Attributes:
        shard: number of the shard.
        channels: channels that hold messages, or did so within the channel timeout.
        messages: messages stored.
        clients: connected clients, each counted once per channel.
        sent: messages sent, ever; counted from zero again when Redis was emptied.
        removed: messages removed, ever, by sweeps and by the hard backlog.
        restored: messages put back from an archive, ever.
        idle: channels due to be removed.
        over_backlog: channels due to be trimmed by count.
        too_old: channels due to be trimmed by age.
        expired: channels where a client may have expired.
    """

    shard: int
    channels: int
    messages: int
    clients: int
    sent: int
    removed: int
    restored: int
    idle: int
    over_backlog: int
    too_old: int
    expired: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepStats:
    """The state of a sweep.

    Attributes:
        due: channels with something due, now.
        overdue: seconds by which the channel that waits longest is past its limit; 0 where the limit is a count.
        interval: seconds between two runs, None for a cron expression.
        success_age: seconds since nothing was left due, in the shard where that is longest ago; None for never.
        started_age: seconds since the last run began, None for never.
        ended_age: seconds since the last run ended, None for never.
        failed_age: seconds since a run last failed, None for never.
        last: the record of its runs.
    """

    due: int
    overdue: float
    interval: float | None
    success_age: float | None
    started_age: float | None
    ended_age: float | None
    failed_age: float | None
    last: LastRun

    @property
    def behind(self) -> float | None:
        """Seconds since the last success should have been; 0 when it keeps up, None when that cannot be said."""
        if self.success_age is None or self.interval is None:
            return None
        late = self.success_age - self.interval
        return late if late > max(LATE * self.interval, LATE_SECONDS) else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """The state of the chat.

    Attributes:
        channels: channels that hold messages, or did so within the channel timeout.
        messages: messages stored.
        clients: connected clients, each counted once per channel.
        sent: messages sent, ever; counted from zero again when Redis was emptied.
        removed: messages removed, ever, by sweeps and by the hard backlog.
        restored: messages put back from an archive, ever.
        sweeps: the state of each sweep, by its name, such as ``clean_channels``.
        memory_used: bytes that Redis uses, for all that is in it; in a cluster, those of the server with least room.
        memory_limit: bytes that this server may use, 0 for no limit.
        shards: the state of each shard, in order.
    """

    channels: int
    messages: int
    clients: int
    sent: int
    removed: int
    restored: int
    sweeps: dict[str, SweepStats]
    memory_used: int
    memory_limit: int
    shards: tuple[ShardStats, ...]
