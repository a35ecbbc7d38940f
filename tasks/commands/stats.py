"""``chat stats``: the state of the chat as a screen for people, or as JSON for scripts."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chat import InvalidArgumentError
from chat.store.connect import connect
from chat.store.urls import redact_url
from tasks.commands.screen import stats_lines
from tasks.stats.figures import read_stats
from tasks.stats.usage import read_fullest, read_memory, read_queue

if TYPE_CHECKING:
    import argparse

    from chat.store.nodes import Client
    from tasks.settings import Settings
    from tasks.stats.figures import Stats
    from tasks.stats.usage import Memory, Queue

__all__ = ["pause_of", "stats_command"]

LONGEST_PAUSE = 86400  # seconds between two looks of a watch


def stats_command(options: argparse.Namespace, settings: Settings) -> None:
    """Print the state of the chat, once or again and again."""
    client = connect(settings.redis_url)
    broker = connect(settings.broker_url) if settings.broker_url else None
    if not options.watch:
        _print(client, broker, options, settings)
        return
    pause = pause_of(options)
    clear = "\x1b[H\x1b[J" if sys.stdout.isatty() and not options.json else ""
    while True:
        print(clear, end="")
        try:
            _print(client, broker, options, settings)
        except (RedisConnectionError, RedisTimeoutError) as error:  # it may come back, and then this goes on
            print(f"no Redis at {redact_url(settings.redis_url)}: {error}", flush=True)
        time.sleep(pause)


def _print(client: Client, broker: Client | None, options: argparse.Namespace, settings: Settings) -> None:
    stats = read_stats(client, settings=settings)
    memory = read_memory(client, settings=settings)
    fullest = read_fullest(client, settings=settings)
    queue: Queue | str = "CHAT_BROKER_URL is not set"
    if broker:
        try:
            queue = read_queue(broker, settings=settings)
        except RedisError:
            queue = "broker unreachable"
    if options.json:
        print(json.dumps(_as_json(stats, memory, fullest, queue, shards=options.shards)), flush=True)
        return
    print("\n".join(stats_lines(stats, memory, fullest, queue)), flush=True)
    if options.shards:
        names = ("channels", "messages", "clients", "idle", "over_backlog", "too_old", "expired")
        print("\nshard " + " ".join(f"{name:>{len(name) + 1}}" for name in names))
        for shard in stats.shards:
            print(f"{shard.shard:5} " + " ".join(f"{getattr(shard, name):{len(name) + 1}}" for name in names))


def _as_json(
    stats: Stats, memory: Memory, fullest: list[tuple[str, int]], queue: Queue | str, *, shards: bool
) -> dict[str, Any]:
    found = dataclasses.asdict(stats)
    for name, sweep in stats.sweeps.items():
        found["sweeps"][name]["behind"] = sweep.behind
    if not shards:
        del found["shards"]
    found |= {"memory": dataclasses.asdict(memory), "fullest": fullest}
    return found | {"queue": None if isinstance(queue, str) else dataclasses.asdict(queue)}


def pause_of(options: argparse.Namespace) -> float:
    """Return the seconds that a watch waits between two looks."""
    every: float = options.every
    if not 0 < every <= LONGEST_PAUSE:
        message = f"--every is {every:g}, must be a number of seconds above 0, at most {LONGEST_PAUSE}"
        raise InvalidArgumentError(message)
    return every
