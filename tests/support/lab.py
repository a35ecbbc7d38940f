"""A chat whose time the test bends: by data, never by waiting."""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any
from zlib import crc32

from redis.cluster import RedisCluster

from chat import AsyncChat, Chat
from chat.store.entries import decode_slice
from chat.store.keys import decode_text
from chat.store.nodes import nodes
from tasks.archive.reader import Reader
from tasks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from chat.store.nodes import Client


class Blocking:
    """An AsyncChat that is called like a Chat, from any thread: what tests say of the one holds for the other."""

    def __init__(self, redis: Client, settings: Settings) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._chat = self._run(self._make(redis, settings))

    async def _make(self, redis: Client, settings: Settings) -> AsyncChat:
        if isinstance(redis, RedisCluster):
            return AsyncChat.from_url(f"redis+cluster://127.0.0.1:{redis.get_primaries()[0].port}", settings=settings)
        port = redis.connection_pool.connection_kwargs["port"]
        return AsyncChat.from_url(f"redis://127.0.0.1:{port}/0", settings=settings)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._chat, name)

        def call(*args: Any, **options: Any) -> Any:
            answer = method(*args, **options)
            return self._run(answer) if inspect.isawaitable(answer) else self._each(answer)

        return call

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _each(self, items: Any) -> Iterator[Any]:
        while True:
            try:
                yield self._run(anext(items))
            except StopAsyncIteration:
                return

    def close(self) -> None:
        self._run(self._chat.aclose())

    def stop(self) -> None:
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Lab:
    """One chat, its Redis, and hands to make channels and clients old."""

    blocking: list[Blocking] | None = None  # those made, in a test of AsyncChat

    def __init__(self, redis: Client, **settings: Any) -> None:
        self.redis = redis
        self.settings = Settings(**settings)
        self.chat: Any = Chat(redis, settings=self.settings)
        if self.blocking is not None:
            self.chat = Blocking(redis, self.settings)
            self.blocking.append(self.chat)
        self.send = self.chat.send_message
        self.check = self.chat.check_messages

    def key(self, channel: str, name: str) -> str:
        """Return the key `name` of the channel's shard; one that ends in a colon is the channel's own."""
        shard = crc32(channel.encode("utf-8", "surrogatepass")) % self.settings.shards
        return f"{self.settings.prefix}:{{{shard}}}:{name}{channel if name.endswith(':') else ''}"

    def send_all(self, channel: str, count: int, start: int = 1) -> list[str]:
        """Send m1, m2, ... and return them."""
        bodies = [f"m{number}" for number in range(start, start + count)]
        for body in bodies:
            self.send(channel, body)
        return bodies

    def fill(self, channel: str, count: int) -> None:
        """Store so many messages: the first is sent, the others are copies of it, which is faster."""
        self.send(channel, "m")
        log = self.key(channel, "log:")
        self.redis.rpush(log, *self.redis.lrange(log, -1, -1) * (count - 1))
        self.redis.zincrby(self.key(channel, "sizes"), count - 1, channel)
        self.redis.hincrby(self.key(channel, "meta"), "sent", count - 1)

    def idle(self, channel: str, seconds: float) -> None:
        """Make the channel's last message older."""
        self.redis.zincrby(self.key(channel, "updated"), -seconds * 1000, channel)

    def away(self, client: str, channel: str, seconds: float) -> None:
        """Make the client's last check older."""
        score = self.redis.zincrby(self.key(channel, "seen:"), -seconds * 1000, client)
        self.redis.zadd(self.key(channel, "polled"), {channel: score}, lt=True)

    def aged(self, channel: str, seconds: float) -> None:
        """Make every message stored older."""
        log = self.key(channel, "log:")
        for index, entry in enumerate(self.redis.lrange(log, 0, -1)):
            sent_ms, _, body = entry.partition(b":")
            self.redis.lset(log, index, b"%d:%s" % (int(sent_ms) - seconds * 1000, body))
        self.redis.zincrby(self.key(channel, "heads"), -seconds * 1000, channel)

    def traces(self, channel: str) -> dict[str, Any]:
        """Return everything Redis holds of a channel."""
        indexes = ("updated", "sizes", "heads", "polled")
        found: dict[str, Any] = {name: self.redis.zscore(self.key(channel, name), channel) for name in indexes}
        found["trimmed"] = self.redis.hget(self.key(channel, "trimmed"), channel)
        found |= {name: self.redis.exists(self.key(channel, name)) or None for name in ("log:", "seen:", "read:")}
        return {name: value for name, value in found.items() if value is not None}


def at_once(work: Callable[[], Any], count: int = 4) -> None:
    """Do the work in so many threads at once."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def bodies(check: Any) -> list[Any]:
    return [message.body for message in check]


def kept(folder: Path) -> list[tuple[str, int, Any]]:
    """Return channel, id and body of each message in an archive."""
    with Reader(folder) as archive:
        found = [
            (decode_text(name), message.id, message.body)
            for name in archive.channels()
            for part in archive.slices(name)
            for message in decode_slice(part.last, *part.entries())
        ]
    return sorted(found, key=lambda message: message[:2])


def keys(redis: Client, pattern: str = "*") -> list[bytes]:
    """Return what is stored, on every server."""
    return [key for node in nodes(redis) for key in node.keys(pattern)]


def calls(redis: Client) -> dict[str, int]:
    """Return how often each command came from a client (not from a script) since the last call, on every server."""
    counted: Counter[str] = Counter()
    for node in nodes(redis):
        stats = node.info("commandstats")
        node.config_resetstat()
        counted.update({name[8:]: entry["calls"] for name, entry in stats.items()})
    return {name: count for name, count in counted.items() if not re.match("info|config|cluster", name)}
