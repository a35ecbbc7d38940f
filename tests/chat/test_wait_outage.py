"""Who listens while servers die, fail over and hand slots on hears every message, once; with threads and asyncio."""

from __future__ import annotations

import asyncio
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from clusters import Cluster, ask
from lab import Lab
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sentinels import Sentinels
from servers import BINARIES, Server, eventually

from chat import AsyncChat, Chat
from chat.waiting import wait

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

ROOM, END = "lobby", "the end"


class Listener(threading.Thread):
    """A client that listens to the room until the end."""

    def __init__(self, url: str, *, asynchronous: bool) -> None:
        super().__init__(daemon=True)
        self._url, self._asynchronous = url, asynchronous
        self.heard: list[Any] = []
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            if self._asynchronous:
                asyncio.run(self._listen_async())
            else:
                self._listen()
        except Exception as error:  # noqa: BLE001  the test looks at it
            self.error = error

    def _listen(self) -> None:
        with Chat.from_url(self._url) as chat:
            for message in chat.listen("ann", ROOM):
                self.heard.append(message.body)
                if message.body == END:
                    return

    async def _listen_async(self) -> None:
        async with AsyncChat.from_url(self._url) as chat:
            async for message in chat.listen("bob", ROOM):
                self.heard.append(message.body)
                if message.body == END:
                    return


class Room:
    """A room with two listeners, and what was said in it."""

    def __init__(self, url: str) -> None:
        self.chat = Chat.from_url(url)
        self.said: list[str] = []
        self.listeners = [Listener(url, asynchronous=False), Listener(url, asynchronous=True)]
        eventually(lambda: self.chat.count_clients(ROOM) == 2)

    def say(self, body: str) -> None:
        """Send until it is acknowledged, and see that both heard it, after all that was said before."""
        eventually(lambda: self._send(body))
        self.said.append(body)
        eventually(lambda: self.errors() or all(listener.heard == self.said for listener in self.listeners))
        assert not self.errors()

    def end(self) -> None:
        self.say(END)
        for listener in self.listeners:
            listener.join(20)
            assert not listener.is_alive()
        self.chat.close()

    def _send(self, body: str) -> bool:
        try:
            self.chat.send_message(ROOM, body, key=body)
        except (RedisConnectionError, RedisTimeoutError):
            return False
        return True

    def errors(self) -> list[BaseException]:
        return [listener.error for listener in self.listeners if listener.error]


def slot_of(cluster: Cluster, channel: str) -> int:
    with cluster.client() as client:
        return int(client.keyslot(Lab(client).key(channel, "log:")))


@pytest.fixture(autouse=True)
def no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only wake-ups tell: nobody looks again by the clock."""
    monkeypatch.setattr(wait, "RECHECK", 1000)


@pytest.mark.parametrize("engine", BINARIES)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_dies_and_comes_back(engine: str, how: signal.Signals, tmp_path: Path) -> None:
    server = Server(engine, tmp_path, {"appendonly": "yes", "appendfsync": "always"}).start()
    try:
        room = Room(server.url)
        for number in range(3):
            room.say(f"before {number}")
            server.stop(how)
            server.start()
            room.say(f"after {number}")
        room.end()
    finally:
        server.stop()


@pytest.mark.parametrize("engine", BINARIES)
@pytest.mark.parametrize("longest_wait", [60, 0.2])  # longer than the outage, and shorter
def test_an_outage_longer_than_a_call_is_patient(
    engine: str, longest_wait: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait, "RECHECK", 0.05)
    monkeypatch.setattr(wait, "LONGEST_WAIT", longest_wait)
    failed: list[str] = []
    bear = wait.Wait.failed

    def noted(waiting: wait.Wait, *args: Any) -> float:
        failed.append(threading.current_thread().name)
        return bear(waiting, *args)

    monkeypatch.setattr(wait.Wait, "failed", noted)
    server = Server(engine, tmp_path, {"appendonly": "yes", "appendfsync": "always"}).start()
    try:
        room = Room(server.url)
        room.say("before")
        server.stop(signal.SIGKILL)
        eventually(lambda: room.errors() or all(failed.count(listener.name) > 1 for listener in room.listeners))
        assert not room.errors()
        server.start()
        room.end()
    finally:
        server.stop()


@pytest.mark.parametrize("engine", BINARIES)
def test_an_outage_longer_than_the_wait_is_an_error(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait, "RECHECK", 0.05)
    server = Server(engine, tmp_path).start()
    with Chat.from_url(server.url) as chat, ThreadPoolExecutor() as pool:
        waiting = pool.submit(chat.check_messages, "ann", ROOM, wait=2)
        eventually(lambda: chat.count_clients(ROOM) == 1)
        server.stop(signal.SIGKILL)
        with pytest.raises(RedisConnectionError):
            waiting.result(30)


@pytest.mark.parametrize("engine", BINARIES)
def test_a_failover_of_sentinels(engine: str, tmp_path: Path) -> None:
    with Sentinels(engine, tmp_path) as sentinels:
        room = Room(sentinels.url)
        for number in range(2):
            room.say(f"before {number}")
            dead = sentinels.primary()
            assert ask(dead, "WAIT", 1, 5000) == 1
            sentinels.kill_primary()
            room.say(f"after {number}")
            sentinels.restart(dead)
        room.end()


@pytest.mark.parametrize("engine", BINARIES)
def test_a_slot_that_moves_and_a_primary_that_dies(engine: str, tmp_path: Path) -> None:
    with Cluster(engine, tmp_path, replicas=1) as cluster:
        room = Room(cluster.url)
        slot = slot_of(cluster, ROOM)
        for number in range(3):
            room.say(f"moves {number}")
            owner = cluster.owner(slot)
            cluster.move(slot, next(node for node in cluster.primaries() if node is not owner))
            room.say(f"moved {number}")
        victim = cluster.owner(slot)
        assert ask(victim, "WAIT", 1, 5000) >= 1
        cluster.kill(victim)
        room.say("after the death")
        cluster.restart(victim)
        room.end()
