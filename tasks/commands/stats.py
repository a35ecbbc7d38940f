"""``celery -A tasks stats``: the state of the chat as a screen for people, or as JSON for scripts."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rich.live import Live

from chat import InvalidArgumentError
from chat.screen import confirm_pause
from chat.store.connect import connect
from chat.store.urls import redact_url
from tasks.commands.console import console, running, write
from tasks.commands.stats_screen import Reading, line, screen
from tasks.settings import Settings
from tasks.stats.figures import read_stats
from tasks.stats.usage import read_fullest, read_memory, read_queue

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Group
    from rich.text import Text

    from tasks.stats.usage import Queue

__all__ = ["stats"]


def stats(*, watch: bool, every: float | None, shards: bool, as_json: bool) -> None:
    """Print the state of the chat once, or until Ctrl-C."""
    with running("stats"):
        settings = Settings.from_env()
        read = _reader(settings)
        if every is not None and not watch:
            message = "--every is given without --watch, must be given with it"
            raise InvalidArgumentError(message)
        if watch:
            every = 2.0 if every is None else every
            confirm_pause(every)
            with suppress(KeyboardInterrupt):
                _follow(read, redact_url(settings.redis_url), every=every, shards=shards, as_json=as_json)
        elif as_json:
            print(_to_json(read(), shards=shards))
        else:
            write(screen(read(), shards=shards))


def _reader(settings: Settings) -> Callable[[], Reading]:
    """Return a function that takes one reading."""
    client = connect(settings.redis_url)
    broker = connect(settings.broker_url) if settings.broker_url else None

    def read() -> Reading:
        queue: Queue | str = "CHAT_BROKER_URL is not set"
        found = read_stats(client, settings=settings)
        memory, fullest = read_memory(client, settings=settings), read_fullest(client, settings=settings)
        if broker:
            try:
                queue = read_queue(broker, settings=settings)
            except RedisError:
                queue = "broker unreachable"
        return Reading(found, memory, fullest, queue)

    return read


def _follow(read: Callable[[], Reading], url: str, *, every: float, shards: bool, as_json: bool) -> None:
    """Show one reading after another: in one place on a terminal, one below the other elsewhere."""
    out = console(sys.stdout)
    live = Live(console=out, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
    is_live = out.is_terminal and not as_json
    with live if is_live else nullcontext():
        while True:
            shown: Group | Text | str
            try:
                reading = read()
                shown = _to_json(reading, shards=shards) if as_json else screen(reading, shards=shards)
            except (RedisConnectionError, RedisTimeoutError) as error:  # it may come back
                shown = line(f"no Redis at {url}: {error}")
            if isinstance(shown, str):
                print(shown, flush=True)
            elif is_live:
                live.update(shown, refresh=True)
            else:
                write(shown)
            time.sleep(every)


def _to_json(reading: Reading, *, shards: bool) -> str:
    """Return a reading as one line of JSON."""
    found = dataclasses.asdict(reading.stats)
    for name, sweep in reading.stats.sweeps.items():
        found["sweeps"][name]["behind"] = sweep.behind
    if not shards:
        del found["shards"]
    queue = None if isinstance(reading.queue, str) else dataclasses.asdict(reading.queue)
    found |= {"memory": dataclasses.asdict(reading.memory), "fullest": reading.fullest, "queue": queue}
    return json.dumps(found)
