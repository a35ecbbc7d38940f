"""Rows of waiting: what a send costs that nobody waits for, and how soon a thousand who wait are told."""

from __future__ import annotations

import asyncio
import hashlib
import time
from copy import copy
from itertools import cycle
from typing import TYPE_CHECKING, Any

from figures import BODY, Bench, in_turn, timed

from chat import AsyncChat, Chat, _chat
from chat.store.scripts import SEND

if TYPE_CHECKING:
    from collections.abc import Callable

    from chat.store.scripts import Script

CHANNELS = [f"channel-{number}" for number in range(100)]
TELLS = "redis.pcall('SPUBLISH', log, '')"


def wake(bench: Bench) -> None:
    """A send beside the same one that tells nobody; then tasks of one event loop that wait."""
    silent = copy(SEND)
    assert TELLS in silent.source
    silent.source = silent.source.replace(TELLS, "")
    silent.sha = hashlib.sha1(silent.source.encode(), usedforsecurity=False).hexdigest()
    with bench.client() as redis:
        chat, names = Chat(redis), cycle(CHANNELS)

        def sending(script: Script) -> Callable[[float], float]:
            def work(seconds: float) -> float:
                ours, _chat.SEND = _chat.SEND, script
                try:
                    return timed(lambda: chat.send_message(next(names), BODY), seconds)
                finally:
                    _chat.SEND = ours

            return work

        candidates = {"chat": sending(SEND), "silent": sending(silent)}
        rates = in_turn(bench, candidates, redis.flushall)
    ratios = [other / mine for mine, other in zip(rates["chat"], rates["silent"], strict=True)]
    bench.add("waiting", "a send nobody waits for, time, of one that tells nobody", ratios, limit=1.1)
    count = 50 if bench.quick else 1_000
    for channels in (1, count):
        took = [asyncio.run(_told(bench, count, channels)) for _ in range(2 if bench.quick else 5)]
        what = f"{count:,} tasks of one process, {channels:,} channels: first send to the last task told"
        bench.add("waiting", what, took, "ms")


async def _told(bench: Bench, count: int, channels: int) -> float:
    with bench.client() as redis:
        redis.flushall()
    async with AsyncChat.from_url(bench.server.url) as chat:
        names = [f"channel-{number}" for number in range(channels)]
        waiters = [
            asyncio.create_task(chat.check_messages(f"client-{number}", names[number % channels], wait=60))
            for number in range(count)
        ]
        for name in names:
            while await chat.count_clients(name) < count // channels:  # noqa: ASYNC110  Redis has no event for it
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2 if bench.quick else 1)  # all have looked, and are still
        start = time.perf_counter()
        for name in names:
            await chat.send_message(name, BODY)
        checks: list[Any] = [await waiter for waiter in waiters]
        took = time.perf_counter() - start
        assert all(len(check) == 1 for check in checks)
        return 1000 * took
