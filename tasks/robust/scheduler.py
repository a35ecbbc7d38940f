"""Beat's scheduler: it continues the last beat's intervals, and cleans by itself when Redis is too full for a task."""

from __future__ import annotations

import heapq
import time
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from celery.beat import Scheduler as CeleryScheduler
from celery.beat import SchedulingError
from celery.utils.log import get_logger
from redis.exceptions import OutOfMemoryError, RedisError

from chat import ChatError
from chat.store.connect import connect
from chat.store.keys import Keys
from tasks.cleaning import SWEEPS
from tasks.cleaning.record import note_scheduled, scheduled_ages
from tasks.health import touch
from tasks.periodic import run_sweep
from tasks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chat.store.nodes import Client

__all__ = ["Scheduler"]

TIME_BUDGET = 10  # seconds; beat does nothing else meanwhile
SPREAD = 1.5  # seconds over which the runs that are overdue at the start are spread
RETRY = 5  # seconds before a failed read of the record, or a run that could not be sent, is tried again
RECORD_TIMEOUT = 2  # seconds for an answer about the record

log = get_logger(__name__)


@cache
def record() -> tuple[Client, Keys]:
    """Return a client for the record of the runs, made when beat first needs it, and the keys."""
    settings = Settings.from_env()
    return connect(settings.redis_url, timeout=RECORD_TIMEOUT, retries=1), Keys(settings.prefix, settings.shards)


class Scheduler(CeleryScheduler):  # type: ignore[misc]  # celery ships no types
    """Celery's in-memory scheduler, with a memory in Redis and a way out of a full Redis.

    Celery's scheduler counts every interval from the start of beat: an interval longer than beat's life never ends.
    So the record of the runs in Redis holds when each entry was last scheduled, and a new beat continues from there.

    A full Redis refuses to queue the very task that would free memory. The sweeps need no broker, and Redis runs their
    scripts even when it is full, so beat runs the due sweep itself.
    """

    _heap: Any  # Celery's entries by the time of their next run; None makes Celery sort them again
    _record = staticmethod(record)
    _recalled = False  # whether the record has been read
    _recall_at = 0.0
    _unsent: Any = None  # the entry of this tick, if it could not be sent

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        """Touch the heartbeat file, then send what is due."""
        touch()
        if not self._recalled and time.monotonic() >= self._recall_at:
            self._recall()
        delay = super().tick(*args, **kwargs)
        if self._unsent:
            self._send_later(self._unsent)
            self._unsent = None
        return delay

    def _recall(self) -> None:
        """Read from the record when each entry was last scheduled; beat goes on without it until it can be read."""
        try:
            ages = scheduled_ages(*self._record(), list(self.schedule))
        except RedisError as error:
            self._recall_at = time.monotonic() + RETRY
            log.warning("cannot read when runs were last scheduled, intervals count from the start of beat: %s", error)
            return
        self._recalled = True
        for name, entry in self.schedule.items():
            interval = getattr(entry.schedule, "run_every", None)
            if entry.total_run_count:  # sent by this beat, before the record could be read
                continue
            if name in ages:
                entry.last_run_at = entry.default_now() - timedelta(seconds=ages[name])
            elif interval:
                entry.last_run_at = entry.default_now() - interval
            else:  # a new cron expression: only runs that are missed from now on are caught up
                self._note(name)
        self._heap = None

    def populate_heap(self, *args: Any, **kwargs: Any) -> None:
        """Sort the entries by their next run, and space out those that are due already."""
        super().populate_heap(*args, **kwargs)
        now = time.time()
        due = sum(event.time <= now for event in self._heap)
        self._heap = [
            event._replace(time=event.time + SPREAD * number / due) if number < due else event
            for number, event in enumerate(sorted(self._heap))
        ]
        heapq.heapify(self._heap)

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Publish a due entry, or run its sweep here when Redis is full; log a failure in one line."""
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except SchedulingError as error:
            if any(isinstance(cause, OutOfMemoryError) for cause in _causes(error)):
                done = self._clean_here(entry)
            else:
                log.warning("%s", error)
                done = False
        else:
            log.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)
            done = True
        if done:
            self._note(entry.name)
        else:
            self._unsent = entry

    def _note(self, name: str) -> None:
        """Record that an entry was scheduled now."""
        try:
            note_scheduled(*self._record(), name)
        except RedisError as error:
            log.warning("cannot record that %s was scheduled: %s", name, error)

    def _send_later(self, entry: Any) -> None:
        """Keep an entry due that could not be sent: Celery would wait a whole interval, which may be a day."""
        self.schedule[entry.name] = entry
        again = self._when(entry, RETRY)
        self._heap = [
            event._replace(time=min(event.time, again), entry=entry) if event.entry.name == entry.name else event
            for event in self._heap
        ]
        heapq.heapify(self._heap)

    def _clean_here(self, entry: Any) -> bool:
        """Run an entry's sweep and return whether it ran; only the three sweeps can run without a worker."""
        package, _, sweep = entry.task.partition(".")
        clean = SWEEPS.get(sweep) if package == "tasks" else None
        if clean is None:
            log.warning("Redis is full: %s cannot be sent", entry.name)
            return False
        try:
            report = run_sweep(clean, entry.kwargs, time_budget=TIME_BUDGET)
        except (RedisError, ChatError) as error:
            log.warning("Redis is full, and beat cannot clean: %s", error)
            return False
        # One logger a sweep: the log filter counts repetitions by logger, and must not hide one sweep behind another.
        log.getChild(sweep).warning("Redis is full, beat cleans by itself: %s", report)
        return True


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    while error:
        yield error
        error = error.__cause__ or error.__context__
