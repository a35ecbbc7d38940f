"""Checks that wait, in threads of their own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from servers import eventually

from chat.store.nodes import nodes

if TYPE_CHECKING:
    from lab import Lab


class Waiter(threading.Thread):
    """A check in a thread of its own."""

    def __init__(self, work: Any) -> None:
        super().__init__(daemon=True)
        self._work = work
        self.answer: Any = None
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self.answer = self._work()
        except Exception as error:  # noqa: BLE001  the test looks at it
            self.error = error

    def result(self, seconds: float = 20) -> Any:
        self.join(seconds)
        assert not self.is_alive(), "it waits still"
        if self.error:
            raise self.error
        return self.answer


def waiting(lab: Lab, client: str = "bob", channel: str = "lobby", seconds: float = 50, **options: Any) -> Waiter:
    """Start a wait, and return when it is listening."""
    before = listeners(lab, channel)
    waiter = Waiter(lambda: lab.check(client, channel, wait=seconds, **options))
    eventually(lambda: listeners(lab, channel) > before or (before and lab.chat.count_clients(channel)))
    return waiter


def checked_and_waiting(lab: Lab) -> Waiter:
    """Start a wait of bob, who is known, and return when its first check has been made too."""
    lab.check("bob", "lobby")
    lab.away("bob", "lobby", 100)
    before = lab.redis.zscore(lab.key("lobby", "seen:"), "bob")
    waiter = waiting(lab)
    eventually(lambda: lab.redis.zscore(lab.key("lobby", "seen:"), "bob") > before)
    return waiter


def listeners(lab: Lab, channel: str) -> int:
    log = lab.key(channel, "log:").encode()
    return sum(int(node.execute_command("PUBSUB", "SHARDNUMSUB", log)[1]) for node in nodes(lab.redis))
