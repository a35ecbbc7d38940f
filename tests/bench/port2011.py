"""The design of June 2011, ported small and faithfully to today's redis-py: what the chat is measured against.

Keys: `ids:` ZSET channel -> last id; `messages:<channel>` HASH id -> text; `timeline:<channel>` ZSET of ids;
`updated:` ZSET channel -> time of its last message; `clients:` ZSET "client:channel" -> time of its last check;
`clients:<client>:<channel>` ZSET of every id that the client knows; `checked:` ZSET channel -> its last id when the
backlog was last cleaned; `lock:...` of redis-py, 5 seconds each.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis import Redis
    from redis.lock import Lock

LOCK_SECONDS = 5
RETRY = 0.001  # seconds between two tries for a lock, as in 2011; redis-py's own default is 0.1


class Port2011:
    """Send, check and clean with locks in the client."""

    def __init__(self, client: Redis, *, retry: float = RETRY) -> None:
        self.client, self.retry = client, retry

    def lock(self, name: str) -> Lock:
        return self.client.lock(f"lock:{name}", timeout=LOCK_SECONDS, sleep=self.retry)

    def send(self, channel: str, body: Any) -> int:
        with self.lock(f"channel:{channel}"):
            number = int(self.client.zincrby("ids:", 1, channel))
            with self.client.pipeline() as pipe:
                pipe.hset(f"messages:{channel}", str(number), json.dumps(body))
                pipe.zadd(f"timeline:{channel}", {str(number): number})
                pipe.zadd("updated:", {channel: time.time()})
                pipe.execute()
        return number

    def check(self, who: str, channel: str, limit: int = 10) -> list[Any]:
        known, timeline, fresh = f"clients:{who}:{channel}", f"timeline:{channel}", f"fresh:{who}:{channel}"
        with self.lock(f"client:{who}"), self.lock(f"channel:{channel}"):
            with self.client.pipeline() as pipe:
                pipe.zunionstore(fresh, {timeline: 1, known: 0}, aggregate="MIN")  # a known id gets 0
                pipe.zrange(fresh, "(0", "+inf", byscore=True)
                pipe.unlink(fresh)
                pipe.zadd("clients:", {f"{who}:{channel}": time.time()})
                _, unknown, _, is_new = pipe.execute()
            if is_new:
                self.client.zunionstore(known, [timeline])
                return []  # a new connection: it knows everything present
            unknown = unknown[:limit]
            with self.client.pipeline() as pipe:
                if unknown:
                    pipe.zadd(known, {number: int(number) for number in unknown})
                pipe.zinterstore(known, {known: 1, timeline: 0})  # forget ids that left the timeline
                if unknown:
                    pipe.hmget(f"messages:{channel}", unknown)
                replies = pipe.execute()
        return [json.loads(text) for text in replies[-1] if text] if unknown else []

    def clean(self, *, idle: float = 900, backlog: int = 100, away: float = 300) -> int:
        """Do the three cleanups as one pass, and return the number of channels removed."""
        with self.client.lock("lock:cleanup:", timeout=3600):
            removed = self.clean_channels(idle)
            self.clean_backlogs(backlog)
            self.clean_clients(away)
        return removed

    def clean_channels(self, idle: float) -> int:
        removed = 0
        for channel in self.client.zrange("updated:", 0, time.time() - idle, byscore=True):
            name = channel.decode()
            with self.lock(f"channel:{name}"):
                if (self.client.zscore("updated:", name) or time.time()) > time.time() - idle:
                    continue  # a message came in between
                with self.client.pipeline() as pipe:
                    pipe.delete(f"messages:{name}", f"timeline:{name}")
                    for index in ("ids:", "updated:", "checked:"):
                        pipe.zrem(index, name)
                    pipe.execute()
                removed += 1
        return removed

    def clean_backlogs(self, backlog: int) -> None:
        with self.client.pipeline() as pipe:
            pipe.zinterstore("checked:", {"checked:": 1, "ids:": 0})  # forget channels that have gone
            pipe.zunionstore("busy:", {"ids:": 1, "checked:": -1})
            pipe.zrange("busy:", 0, -1, desc=True)
            *_, channels = pipe.execute()
        for channel in channels:
            name = channel.decode()
            with self.lock(f"channel:{name}"):
                old = self.client.zrange(f"timeline:{name}", 0, -backlog - 1)
                with self.client.pipeline() as pipe:
                    if old:
                        pipe.hdel(f"messages:{name}", *old)
                        pipe.zrem(f"timeline:{name}", *old)
                    pipe.zscore("ids:", name)
                    last = pipe.execute()[-1]
                self.client.zadd("checked:", {name: last or 0})

    def clean_clients(self, away: float) -> None:
        for pair in self.client.zrange("clients:", 0, time.time() - away, byscore=True):
            name = pair.decode()
            with self.lock(f"client:{name.partition(':')[0]}"):
                if (self.client.zscore("clients:", name) or time.time()) <= time.time() - away:
                    with self.client.pipeline() as pipe:
                        pipe.zrem("clients:", name)
                        pipe.delete(f"clients:{name}")
                        pipe.execute()
