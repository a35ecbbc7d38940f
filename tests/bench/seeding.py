"""Channels by the million, straight into the layout of chat/store/keys.py, by a script in the server."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from redis import Redis

SHARDS = 16
CHUNK = 500
IDLE_MS, AWAY_MS = 2_000_000, 1_000_000  # how old the due ones are: both above the defaults
CHANNELS = """
local head, now, clients = ARGV[1], tonumber(ARGV[2]), ARGV[5] == '1'
local messages, due_messages = tonumber(ARGV[3]), tonumber(ARGV[4])
local idle_ms, away_ms = tonumber(ARGV[6]), tonumber(ARGV[7])
for i = 8, #ARGV do
  local due, name = ARGV[i]:sub(1, 1) == 'd', ARGV[i]:sub(2)
  local updated = due and now - idle_ms or now
  local count = due and due_messages or messages
  redis.call('ZADD', head .. 'updated', updated, name)
  redis.call('ZADD', head .. 'heads', updated, name)
  redis.call('ZADD', head .. 'sizes', count, name)
  redis.call('HSET', head .. 'trimmed', name, 0)
  for _ = 1, count do redis.call('RPUSH', head .. 'log:' .. name, string.format('%d:"hi"', updated)) end
  redis.call('HINCRBY', head .. 'meta', 'sent', count)
  if clients then
    local checked = due and now - away_ms or now
    redis.call('ZADD', head .. 'polled', checked, name)
    redis.call('ZADD', head .. 'seen:' .. name, checked, 'bob')
    redis.call('HSET', head .. 'read:' .. name, 'bob', '0 0 12345678')
    redis.call('HINCRBY', head .. 'meta', 'clients', 1)
  end
end
"""


def seed(
    redis: Redis, count: int, *, due_every: int = 1, messages: int = 1, due_messages: int = 1, clients: bool = False
) -> None:
    """Store channels of which every so manieth is idle, holds `due_messages`, and has a client that is away."""
    redis.flushall(asynchronous=False)
    redis.set("chat:shards", SHARDS)
    now = int(redis.time()[0]) * 1000
    of_shard: dict[int, list[str]] = defaultdict(list)
    for number in range(count):
        name = f"channel-{number}"
        of_shard[crc32(name.encode()) % SHARDS].append(("d" if number % due_every == 0 else "f") + name)
    script = redis.script_load(CHANNELS)
    options = (now, messages, due_messages, int(clients), IDLE_MS, AWAY_MS)
    for shard, names in of_shard.items():
        for start in range(0, len(names), CHUNK):
            redis.evalsha(script, 0, f"chat:{{{shard}}}:", *options, *names[start : start + CHUNK])


def seed_giant(redis: Redis, channel: str, messages: int, clients: int) -> None:
    """Store one channel with many messages, all of now, and with clients that are all away."""
    redis.flushall(asynchronous=False)
    redis.set("chat:shards", SHARDS)
    now = int(redis.time()[0]) * 1000
    head = f"chat:{{{crc32(channel.encode()) % SHARDS}}}:"
    redis.zadd(head + "updated", {channel: now})
    redis.zadd(head + "heads", {channel: now})
    redis.zadd(head + "sizes", {channel: messages})
    redis.hset(head + "trimmed", channel, "0")
    for start in range(0, messages, 5_000):
        redis.rpush(
            head + "log:" + channel, *[f'{now}:"{number}"' for number in range(start, min(start + 5_000, messages))]
        )
    if clients:
        redis.zadd(head + "polled", {channel: now - AWAY_MS})
    for start in range(0, clients, 5_000):
        names = [f"client-{number}" for number in range(start, min(start + 5_000, clients))]
        redis.zadd(head + "seen:" + channel, dict.fromkeys(names, now - AWAY_MS))
        redis.hset(head + "read:" + channel, mapping=dict.fromkeys(names, "0 0 12345678"))
    redis.hset(head + "meta", mapping={"sent": messages, "clients": clients})


def seed_bare(redis: Redis, count: int) -> None:
    """Store lists and one sorted set of their names: what the bare removal takes away."""
    redis.flushall(asynchronous=False)
    for start in range(0, count, CHUNK):
        pipeline = redis.pipeline(transaction=False)
        for number in range(start, min(start + CHUNK, count)):
            pipeline.rpush(f"bare:log:channel-{number}", '1700000000000:"hi"')
            pipeline.zadd("bare:updated", {f"channel-{number}": number})
        pipeline.execute()


def seed_port(redis: Redis, count: int, updated: float = 1) -> None:
    """Store channels of one message in the layout of 2011, idle ones unless they were `updated` lately."""
    redis.flushall(asynchronous=False)
    for start in range(0, count, CHUNK):
        pipeline = redis.pipeline(transaction=False)
        for number in range(start, min(start + CHUNK, count)):
            name = f"channel-{number}"
            pipeline.zadd("ids:", {name: 1})
            pipeline.zadd("updated:", {name: updated})
            pipeline.hset(f"messages:{name}", "1", '"hi"')
            pipeline.zadd(f"timeline:{name}", {"1": 1})
        pipeline.execute()
