"""How much is in the chat, and whether cleaning keeps up: a few round trips, however many channels there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chat.store.keys import Keys
from chat.store.layout import confirm_shards
from chat.store.nodes import Command, nodes, raise_first, run_all
from chat.store.scripts import Call, call_all
from tasks.cleaning.runs import LastRun, last_run, time_of
from tasks.cleaning.scripts import DUE
from tasks.settings import Settings

if TYPE_CHECKING:
    from chat.store.nodes import Client

__all__ = ["LastRun", "ShardStats", "Stats", "SweepStats", "read_stats"]

LATE = 0.5  # of its interval a sweep may be late: runs take time, and wait for a worker
LATE_SECONDS = 1.0  # but at least so long


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStats:
    """The state of one shard.

    Attributes:
        shard: its number.
        channels: that hold messages, or did until less than the channel timeout ago.
        messages: stored.
        clients: connected, each counted once per channel.
        sent: messages, ever; counted from zero again when Redis was emptied.
        removed: messages, ever, by sweeps and by the hard backlog.
        restored: messages, ever, that came back from an archive.
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
    """How far a sweep has come.

    Attributes:
        due: channels with something due, now.
        overdue: seconds that the one waiting longest is past its limit; 0 by count.
        interval: seconds between two runs, None for a cron expression.
        success_age: seconds since it last left nothing due, in the shard where that is longest ago; None for never.
        started_age: seconds since its last run began, None for never.
        ended_age: seconds since its last run ended, None for never.
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
        channels: as in `ShardStats`, summed up, like all that follows.
        messages: stored.
        clients: connected.
        sent: messages, ever.
        removed: messages, ever.
        restored: messages, ever.
        sweeps: by name, ``clean_channels`` and so on.
        memory_used: bytes that Redis uses, for all that is in it; of a cluster, the server that has least room.
        memory_limit: bytes that it may use, 0 for no limit.
        shards: each of them, in order.
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


def read_stats(client: Client, *, settings: Settings | None = None) -> Stats:
    """Return the state of the chat.

    The counts of messages and clients are kept, not counted: after a key was lost they are approximate, until their
    shard has been empty.

    Raises:
        ShardsMismatchError: the data lies in another number of shards.
        redis.exceptions.ConnectionError: Redis cannot be reached.
    """
    settings = settings or Settings()
    keys = Keys(settings.prefix, settings.shards)
    confirm_shards(client, keys, create=False)
    rules = _rules(settings)
    marks = [f"done:{index}" for index, *_ in rules]

    commands = [Command(keys.runs, ("HGETALL", keys.runs))]
    for shard in range(settings.shards):
        updated, meta = keys.of_shard(shard, "updated", "meta")
        commands.append(Command(updated, ("ZCARD", updated)))
        commands.append(Command(meta, ("HMGET", meta, *ACCOUNT, *marks)))
    record, *replies = raise_first(run_all(client, commands))
    now_ms, memory_used, memory_limit = _servers(client)
    due, overdue_ms = _due(client, keys, rules)

    shards = tuple(
        _shard(shard, replies[2 * shard], replies[2 * shard + 1], due[shard]) for shard in range(settings.shards)
    )
    sweeps = {}
    for sweep in ("clean_channels", "clean_backlog", "clean_clients"):
        columns = [column for column, (_, _, _, by) in enumerate(rules) if by == sweep]
        marked = [replies[2 * shard + 1][len(ACCOUNT) :] for shard in range(settings.shards)]
        done = [time_of(marks_of[column], now_ms) for marks_of in marked for column in columns]
        last = last_run(record, sweep)
        sweeps[sweep] = SweepStats(
            due=sum(due[shard][column] for shard in range(settings.shards) for column in columns),
            overdue=max(overdue_ms[column] for column in columns) / 1000,
            interval=settings.interval(sweep),
            success_age=_age(now_ms, None if None in done else min(then_ms for then_ms in done if then_ms is not None)),
            started_age=_age(now_ms, last.started_ms),
            ended_age=_age(now_ms, last.ended_ms),
            failed_age=_age(now_ms, last.failed_ms),
            last=last,
        )
    return Stats(
        **{name: sum(getattr(shard, name) for shard in shards) for name in SUMS},
        sweeps=sweeps,
        memory_used=memory_used,
        memory_limit=memory_limit,
        shards=shards,
    )


SUMS = ("channels", "messages", "clients", "sent", "removed", "restored")
ACCOUNT = ("clients", "sent", "removed", "restored", "adjusted")  # fields of `meta`, see chat/store/keys.py


def _servers(client: Client) -> tuple[int, int, int]:
    """Return the time in ms, and the memory used and allowed in bytes, of the server that has least room."""
    seen = []
    for node in nodes(client):
        pipeline: Any = node.pipeline(transaction=False)
        pipeline.time()
        pipeline.info("memory")
        (seconds, microseconds), memory = pipeline.execute()
        used, limit = memory.get("used_memory", 0), memory.get("maxmemory", 0)
        seen.append((used / limit if limit else 0, seconds * 1000 + microseconds // 1000, used, limit))
    _, now_ms, used, limit = max(seen, key=lambda server: (server[0], server[2]))
    return now_ms, used, limit


def _rules(settings: Settings) -> list[tuple[str, str, int, str]]:
    """Return the index that each rule of cleaning asks, as in due.lua, and the sweep it belongs to."""
    rules = [
        ("updated", "age", round(settings.channel_timeout * 1000), "clean_channels"),
        ("polled", "age", round(settings.client_timeout * 1000), "clean_clients"),
        ("sizes", "size", settings.backlog, "clean_backlog"),
    ]
    if settings.message_timeout:
        rules.append(("heads", "age", round(settings.message_timeout * 1000), "clean_backlog"))
    return rules


def _due(client: Client, keys: Keys, rules: list[Any]) -> tuple[list[list[int]], list[int]]:
    """Return how many channels are due, by shard and rule, and for each rule how many ms the longest is overdue."""
    calls = [
        (keys.of_shard(shard, index, "lease:none", "meta"), (by, limit, 0, 0, "", 0, ""))
        for shard in range(keys.shards)
        for index, by, limit, _ in rules
    ]
    replies = raise_first(call_all(client, [Call(DUE, *call) for call in calls]))
    width = len(rules)
    due = [[reply[0] for reply in replies[shard * width :][:width]] for shard in range(keys.shards)]
    return due, [max(reply[1] for reply in replies[column::width]) for column in range(width)]


def _shard(shard: int, channels: int, meta: list[Any], due: list[int]) -> ShardStats:
    clients, sent, removed, restored, adjusted = (int(value or 0) for value in meta[: len(ACCOUNT)])
    idle, expired, over_backlog, *too_old = due
    return ShardStats(
        shard=shard,
        channels=channels,
        messages=max(0, sent - removed + restored + adjusted),
        clients=max(0, clients),
        sent=sent,
        removed=removed,
        restored=restored,
        idle=idle,
        over_backlog=over_backlog,
        too_old=sum(too_old),
        expired=expired,
    )


def _age(now_ms: int, then_ms: int | None) -> float | None:
    return None if then_ms is None else max(0, now_ms - then_ms) / 1000
