"""The chat's metrics on Flower's own ``/metrics``: read from Redis at each scrape, with no scan.

Flower serves the default registry of its process, and loads this module as each process of the app does. Where
nobody serves that registry, in a worker or beat, nothing is ever read.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from chat import ChatError
from chat.store.connect import connect
from tasks.cleaning import SWEEPS
from tasks.schedule import longest_interval
from tasks.settings import Settings
from tasks.stats.figures import read_stats
from tasks.stats.usage import read_queue

try:
    from prometheus_client import REGISTRY
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
except ImportError:  # it comes with Flower
    REGISTRY = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.core import Metric

    from chat.store.nodes import Client
    from tasks.stats.usage import Queue
    from tasks.stats.values import Stats, SweepStats

__all__ = ["NAMES", "Collector"]

TIMEOUT = 1.0  # seconds: Flower serves nothing else meanwhile

UP = ("chat_up", "Whether this scrape could read the chat in Redis.")
WHOLE: tuple[tuple[str, str, Callable[[Stats], float]], ...] = (
    ("chat_channels", "Channels that exist.", lambda stats: stats.channels),
    ("chat_messages", "Messages stored.", lambda stats: stats.messages),
    ("chat_clients", "Clients connected, each counted once per channel.", lambda stats: stats.clients),
    ("chat_messages_sent_total", "Messages sent.", lambda stats: stats.sent),
    ("chat_messages_removed_total", "Messages removed.", lambda stats: stats.removed),
    ("chat_messages_restored_total", "Messages put back from an archive.", lambda stats: stats.restored),
    (
        "chat_channels_removed_total",
        "Channels removed.",
        lambda stats: sum(sweep.last.channels for sweep in stats.sweeps.values()),
    ),
    (
        "chat_clients_removed_total",
        "Clients forgotten.",
        lambda stats: sum(sweep.last.clients for sweep in stats.sweeps.values()),
    ),
    (
        "chat_redis_memory_used_bytes",
        "Memory that Redis uses; of a cluster, the server that has least room.",
        lambda stats: stats.memory_used,
    ),
)
LIMIT = ("chat_redis_memory_limit_bytes", "Memory that Redis may use; absent without a limit.")
EACH: tuple[tuple[str, str, Callable[[SweepStats], float | None]], ...] = (
    ("chat_task_due_channels", "Channels with something due.", lambda sweep: sweep.due),
    ("chat_task_overdue_seconds", "How long the oldest due thing is past its limit.", lambda sweep: sweep.overdue),
    (
        "chat_task_last_success_age_seconds",
        "Time since the task last left nothing due; absent until then.",
        lambda sweep: sweep.success_age,
    ),
    (
        "chat_task_duration_seconds",
        "How long the last run took; absent until then.",
        lambda sweep: sweep.last.report.get("seconds"),
    ),
    ("chat_task_runs_total", "Runs that ended or failed.", lambda sweep: sweep.last.runs),
    ("chat_task_failures_total", "Runs that failed.", lambda sweep: sweep.last.failures),
)
INTERVAL = ("chat_task_interval_seconds", "Longest time between two scheduled runs.")
QUEUE: tuple[tuple[str, str, Callable[[Queue], float]], ...] = (
    ("chat_queue_length", "Tasks that no worker has taken.", lambda queue: queue.waiting),
    ("chat_queue_unacked", "Tasks that a worker has taken and not finished.", lambda queue: queue.unacked),
)
NAMES = tuple(str(metric[0]) for metric in (UP, *WHOLE, LIMIT, *EACH, INTERVAL, *QUEUE))


def _family(name: str, text: str, *labels: str) -> Any:
    """Return a metric without samples: a counter where its name says so, else a gauge."""
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    return kind(name, text, labels=labels)


class Collector:
    """A collector for Prometheus' client library, called at each scrape."""

    def describe(self) -> list[Metric]:
        """Return the names of the metrics, without a call to Redis."""
        return [_family(name, name) for name in NAMES]

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; when Redis is away, only ``chat_up``."""
        up = _family(*UP)
        try:
            client, broker, settings = _clients()
            stats = read_stats(client, settings=settings)
        except (RedisError, ChatError):
            up.add_metric((), 0)
            yield up
            return
        up.add_metric((), 1)
        yield up
        yield from _whole(stats)
        yield from _by_task(stats, settings)
        with suppress(RedisError):  # the broker may be another Redis
            yield from _of_queue(read_queue(broker, settings=settings))


def _whole(stats: Stats) -> Iterator[Metric]:
    """Yield the metrics of the chat and its Redis."""
    for name, text, value in WHOLE:
        metric = _family(name, text)
        metric.add_metric((), value(stats))
        yield metric
    if stats.memory_limit:
        metric = _family(*LIMIT)
        metric.add_metric((), stats.memory_limit)
        yield metric


def _by_task(stats: Stats, settings: Settings) -> Iterator[Metric]:
    """Yield the metrics of each task, under the name that Flower calls it."""
    for name, text, value in EACH:
        metric = _family(name, text, "task")
        for sweep in SWEEPS:
            if (found := value(stats.sweeps[sweep])) is not None:
                metric.add_metric((f"tasks.{sweep}",), found)
        yield metric
    metric = _family(*INTERVAL, "task")
    for sweep in SWEEPS:
        metric.add_metric((f"tasks.{sweep}",), longest_interval(settings, sweep))
    yield metric


def _of_queue(queue: Queue) -> Iterator[Metric]:
    """Yield the metrics of Celery's queue."""
    for name, text, value in QUEUE:
        metric = _family(name, text)
        metric.add_metric((), value(queue))
        yield metric


@cache
def _clients() -> tuple[Client, Client, Settings]:
    """Return clients of the chat's Redis and of the broker's, made at the first scrape."""
    settings = Settings.from_env()
    client, broker = (connect(url, timeout=TIMEOUT, retries=0) for url in (settings.redis_url, settings.broker_url))
    return client, broker, settings


if REGISTRY:
    REGISTRY.register(Collector())
