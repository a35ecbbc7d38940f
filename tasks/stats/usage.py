"""Memory by kind, the fullest channels and the length of the queue: small samples, no scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chat.store.keys import Keys, decode_name
from chat.store.nodes import RAW, Command, raise_first, run_all
from tasks.settings import QUEUE, daemon_settings

if TYPE_CHECKING:
    from chat import Settings
    from chat.store.nodes import Client

__all__ = ["Memory", "Queue", "read_fullest", "read_memory", "read_queue"]

SAMPLE = 128  # channels whose keys are looked at; the rest is taken to be like them
INDEXES = ("updated", "sizes", "heads", "polled", "trimmed", "meta")
TOKENS = ("sent:0", "sent:1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes by kind.

    Attributes:
        messages: the channels' logs, estimated from a sample.
        clients: their times and positions, estimated from a sample.
        indexes: the sorted sets that the sweeps read, and the shards' counts.
        tokens: tokens of recent sends.
    """

    messages: int
    clients: int
    indexes: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Celery's queue.

    Attributes:
        waiting: tasks that no worker has taken.
        unacked: tasks that a worker has taken and not finished.
    """

    waiting: int
    unacked: int


def read_memory(client: Client, *, settings: Settings | None = None) -> Memory:
    """Return what the chat's keys take of Redis' memory, by ``MEMORY USAGE``."""
    settings = daemon_settings(settings)
    keys = Keys(settings.prefix, settings.shards)
    share = -(-SAMPLE // settings.shards)
    commands = []
    for shard in range(settings.shards):
        updated, polled = keys.of_shard(shard, "updated", "polled")
        for index in (updated, polled):
            commands += [Command(index, ("ZCARD", index)), Command(index, ("ZRANDMEMBER", index, share))]
        commands += [_usage_of(key) for key in keys.of_shard(shard, *INDEXES, *TOKENS)]
    replies = iter(raise_first(run_all(client, commands)))

    logs: list[tuple[bytes, ...]] = []
    states: list[tuple[bytes, ...]] = []
    counts, indexes, tokens = [0, 0], 0, 0
    for shard in range(settings.shards):
        for kind, (sampled, names) in enumerate(((logs, ("log",)), (states, ("seen", "read")))):
            counts[kind] += next(replies)
            sampled.append(keys.of_channels(shard, next(replies), *names))
        indexes += sum(next(replies) or 0 for _ in INDEXES)
        tokens += sum(next(replies) or 0 for _ in TOKENS)
    return Memory(
        messages=round(_mean(client, [key for keys in logs for key in keys]) * counts[0]),
        clients=round(2 * _mean(client, [key for keys in states for key in keys]) * counts[1]),
        indexes=indexes,
        tokens=tokens,
    )


def read_fullest(client: Client, count: int = 10, *, settings: Settings | None = None) -> list[tuple[str, int]]:
    """Return the channels with most messages, and how many each holds, fullest first."""
    settings = daemon_settings(settings)
    keys = Keys(settings.prefix, settings.shards)
    sizes = [key for shard in range(settings.shards) for key in keys.of_shard(shard, "sizes")]
    words = (0, count - 1, "WITHSCORES")
    largest = [Command(key, ("ZREVRANGE", key, *words), RAW | {"withscores": True}) for key in sizes]
    found = [(decode_name(name), int(size)) for shard in raise_first(run_all(client, largest)) for name, size in shard]
    return sorted(found, key=lambda channel: (-channel[1], channel[0]))[:count]


def read_queue(broker: Client, *, settings: Settings | None = None) -> Queue:
    """Return how long Celery's queue is.

    Args:
        broker: a client of ``settings.broker_url``.
        settings: the prefix; None for ``Settings()``.
    """
    settings = daemon_settings(settings)
    pipeline = broker.pipeline(transaction=False)
    pipeline.llen(f"{settings.celery_prefix}{QUEUE}")
    pipeline.hlen(f"{settings.celery_prefix}unacked")
    waiting, unacked = pipeline.execute()
    return Queue(waiting=waiting, unacked=unacked)


def _mean(client: Client, keys: list[bytes]) -> float:
    """Return the mean size of some keys in bytes, 0 for none."""
    sizes = raise_first(run_all(client, [_usage_of(key) for key in keys]))
    return sum(size or 0 for size in sizes) / len(keys) if keys else 0.0


def _usage_of(key: bytes) -> Command:
    return Command(key, ("MEMORY USAGE", key))
