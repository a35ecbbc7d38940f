"""How far the task of a sweep is, as its worker tells."""

from __future__ import annotations

import dataclasses
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from chat import ChatError
from tasks.periodic import chat_redis
from tasks.stats.figures import read_stats

if TYPE_CHECKING:
    from tasks.commands.console import Bar

__all__ = ["TaskState", "removed"]

NO_NEWS_AFTER = 3  # seconds without an update until that is shown
PING_AFTER = 10  # seconds without an update until the worker is pinged, and until it is pinged again


@dataclasses.dataclass
class TaskState:
    """The state of a sweep's task, as far as its worker has stored it."""

    bar: Bar | None = None
    before: int = 0  # messages removed from the chat, ever, when the task was sent
    node: str = ""  # the worker that began the task
    done: int = 0  # channels
    total: int = 0
    restarted_after: str = ""  # how far the task was when its process died and another one began anew
    updated: float = dataclasses.field(default_factory=time.monotonic)  # time of the last update
    pinged: float = 0.0  # time of the last ping
    process: int = 0  # the worker's process that began the task
    meta: Any = None  # what was stored with the last state

    def update(self, stored: dict[str, Any]) -> None:
        """Note a state that the worker has stored, which may be the last one again."""
        state, meta = stored["status"], stored["result"]
        if state not in {"STARTED", "PROGRESS"} or meta == self.meta:
            return
        self.meta, self.updated, self.node = meta, time.monotonic(), meta.get("hostname", self.node)
        if state == "PROGRESS":
            self.done, self.total = meta["done"], meta["total"]
            if self.bar:
                self.bar(self.done, self.total)
        elif self.process != meta["pid"]:
            self.restarted_after = self.so_far() if self.process else ""
            self.process = meta["pid"]

    def should_ping(self) -> bool:
        """Return whether the last update is so old that the worker should be pinged; show its age before that."""
        now = time.monotonic()
        if self.bar and now - self.updated >= NO_NEWS_AFTER:
            self.bar.quiet(now - self.updated)
        if not self.node or now - max(self.updated, self.pinged) < PING_AFTER:
            return False
        self.pinged = now
        return True

    def so_far(self) -> str:
        """Return how far the task came, and how many messages were removed meanwhile."""
        came = f"at {self.done:,} of {self.total:,} channels" if self.total else "before it told how far it was"
        with suppress(ChatError, RedisError):
            return f"{came}; {max(0, removed() - self.before):,} messages were removed meanwhile"
        return came


def removed() -> int:
    """Return how many messages were ever removed from the chat."""
    client, settings = chat_redis()
    return read_stats(client, settings=settings).removed
