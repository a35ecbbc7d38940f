"""A reader that polls without pause while eight processes send and a sweeper trims and removes."""

from __future__ import annotations

import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from chat import Chat
from tasks import cleaning
from tasks.settings import Settings

if TYPE_CHECKING:
    from servers import Server

SENDERS, EACH, READERS = 8, 300, 3
SETTINGS = Settings(backlog=20, hard_backlog=60)


def send(port: int, number: int) -> list[int]:
    chat = Chat(Redis(port=port), settings=SETTINGS)
    return [chat.send_message("lobby", [number, index]).id for index in range(EACH)]


class Reader:
    """Checks as one client until told to stop, and keeps account."""

    def __init__(self, server: Server, name: str, limit: int | None, *, cursor: bool) -> None:
        self.chat = Chat(Redis(port=server.port), settings=SETTINGS)
        self.name, self.limit, self.with_cursor = name, limit, cursor
        self.cursor = self.chat.check_messages(name, "lobby").cursor
        self.received: list[Any] = []
        self.missed = 0
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            self.read()

    def read(self) -> bool:
        check = self.chat.check_messages(
            self.name, "lobby", limit=self.limit, after=self.cursor if self.with_cursor else None
        )
        assert not check.new
        self.cursor = check.cursor
        self.missed += check.missed
        self.received += check.messages
        return bool(check) or bool(check.missed) or check.more


def sweep(server: Server, stop: threading.Event) -> None:
    with Redis(port=server.port) as client:
        while not stop.is_set():
            cleaning.clean_backlog(client, settings=SETTINGS)
            cleaning.clean_channels(client, settings=SETTINGS, channel_timeout=0.002)
            cleaning.clean_clients(client, settings=SETTINGS)


@pytest.mark.usefixtures("redis")
def test_every_readers_account_balances(server: Server) -> None:
    readers = [Reader(server, f"reader {n}", (None, 3, None)[n], cursor=n == 2) for n in range(READERS)]
    stop = threading.Event()
    threads = [threading.Thread(target=reader.run) for reader in readers]
    threads.append(threading.Thread(target=sweep, args=(server, stop)))
    for thread in threads:
        thread.start()
    with ProcessPoolExecutor(SENDERS, mp_context=get_context("forkserver")) as pool:
        ids = [one for many in pool.map(send, [server.port] * SENDERS, range(SENDERS)) for one in many]
    stop.set()
    for reader in readers:
        reader.stop.set()
    for thread in threads:
        thread.join()
    assert sorted(ids) == list(range(1, SENDERS * EACH + 1))
    for reader in readers:
        while reader.read():
            pass
        assert len(reader.received) + reader.missed == SENDERS * EACH
        read = [message.id for message in reader.received]
        assert read == sorted(set(read))
        for number in range(SENDERS):
            mine = [message.body[1] for message in reader.received if message.body[0] == number]
            assert mine == sorted(mine)
