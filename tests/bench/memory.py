"""Rows of memory: bytes of the server for a message, a channel and a client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calls import PAYLOAD
from figures import BODY, Bench
from port2011 import Port2011
from servers import eventually

from chat import Chat, Settings

if TYPE_CHECKING:
    from redis import Redis

TYPICAL = 24_576  # channels: the tables of 16 shards are three quarters full, neither just doubled nor about to
SAME, NOISE = 10, 1_000  # so many looks in a row, 20 ms apart, with so few bytes between them
SENT = [f"chat:{{{shard}}}:sent:{window}" for shard in range(16) for window in (0, 1)]


def used(redis: Redis) -> int:
    """Return the memory in use, clients' buffers left out, once the server has stopped resizing its tables."""
    seen: list[int] = []

    def settled() -> bool:
        info = redis.info("memory")
        seen.append(int(info["used_memory"] - info["mem_clients_normal"]))
        return len(seen) > SAME and max(seen[-SAME:]) - min(seen[-SAME:]) < NOISE

    eventually(settled)
    return seen[-1]


def memory(bench: Bench) -> None:
    """Measure on a server of its own: what other rows have left in this one would count."""
    scale = 10 if bench.quick else 1
    with bench.another() as redis:
        for messages, channels in {1: TYPICAL, 10: 1_000, 100: 100, 1_000: 20}.items():
            _messages(bench, redis, messages, max(channels // scale, 2))
        _clients(bench, redis, 200 // scale)


def _messages(bench: Bench, redis: Redis, messages: int, channels: int) -> None:
    chat = Chat(redis, settings=Settings(hard_backlog=0, dedupe_seconds=3600))
    redis.flushall(asynchronous=False)
    before = used(redis)
    for number in range(channels):
        for _ in range(messages):
            chat.send_message(f"channel-{number}", "hi" if messages == 1 else BODY)
    with_tokens = used(redis)
    redis.delete(*SENT)
    stored = used(redis)
    total = messages * channels
    if messages == 1:
        bench.add("memory", "of a channel with one short message", [(stored - before) / channels], "bytes", limit=650)
        window = [(with_tokens - stored) / total]
        bench.add("memory", "more per send within the dedupe window", window, "bytes", limit=70)
    else:
        each = [(stored - before) / total - len(PAYLOAD)]
        limit = 35 if messages == 100 else None
        bench.add("memory", f"per message over its JSON, {messages} a channel", each, "bytes", limit=limit)


def _clients(bench: Bench, redis: Redis, channels: int) -> None:
    chat, port = Chat(redis), Port2011(redis)
    redis.flushall(asynchronous=False)
    for number in range(channels):
        chat.send_message(f"channel-{number}", BODY)
    before = used(redis)
    for number in range(channels):
        for client in range(50):
            chat.check_messages(f"client-{client}", f"channel-{number}")
    ours = (used(redis) - before) / (channels * 50)
    redis.flushall(asynchronous=False)
    fewer = max(channels // 10, 2)  # with 100 messages each, as a cleaned channel has
    for number in range(fewer):
        for _ in range(100):
            port.send(f"channel-{number}", BODY)
    before = used(redis)
    for number in range(fewer):
        for client in range(50):
            port.check(f"client-{client}", f"channel-{number}")
    theirs = (used(redis) - before) / (fewer * 50)
    bench.add("memory", "per connected client, 50 a channel", [ours], "bytes", limit=130)
    bench.add("memory", "per connected client, the 2011 port's", [theirs], "bytes", note="100 messages a channel")
