"""A peer from PyPI: channels_redis, the channel layer of Django Channels, where it is installed.

Its group_send stores one copy of a message for each member of a group, and receive takes a copy away: each reader has
a queue of its own. It keeps no history, no ids and no positions: a reader that comes later gets nothing, what was taken
and lost on the way is gone, and so are what exceeds the capacity and what is a minute old. It waits instead of polling,
so "nothing new" has no answer to measure. It needs no cleaning daemon, its keys expire.
"""

from __future__ import annotations

import asyncio
import time
from importlib.util import find_spec
from typing import Any

INSTALLED = find_spec("channels_redis") is not None


class Peer:
    """One group with one member, on an event loop of its own."""

    def __init__(self, port: int) -> None:
        from channels_redis.core import RedisChannelLayer  # noqa: PLC0415  where it is installed

        self.loop = asyncio.new_event_loop()
        self.layer: Any = RedisChannelLayer(hosts=[f"redis://127.0.0.1:{port}/0"], capacity=10**9)

    def send(self, body: Any, seconds: float) -> float:
        """Return the sends a second to a group of one."""
        return self.loop.run_until_complete(self._send(body, seconds))

    async def _send(self, body: Any, seconds: float) -> float:
        await self.layer.group_add("lobby", "bob")
        count, start = 0, time.perf_counter()
        while (took := time.perf_counter() - start) < seconds:
            await self.layer.group_send("lobby", {"type": "message", "body": body})
            count += 1
        return count / took

    def receive(self, body: Any, count: int) -> float:
        """Return the messages a second that a member takes, one by one, with as many waiting as it takes."""
        return self.loop.run_until_complete(self._receive(body, count))

    async def _receive(self, body: Any, count: int) -> float:
        for number in range(count):
            await self.layer.send("carol", {"type": "message", "body": body, "n": number})
        start = time.perf_counter()
        for _ in range(count):
            await self.layer.receive("carol")
        return count / (time.perf_counter() - start)

    def close(self) -> None:
        self.loop.run_until_complete(self.layer.close_pools())
        self.loop.close()
