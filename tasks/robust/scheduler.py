"""Beat's scheduler: it goes on where the last beat ended, and cleans by itself when Redis is too full for a task."""

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
from chat.store.connect import Client, connect
from chat.store.keys import Keys
from tasks import cleaning
from tasks.cleaning.runs import note_scheduled, scheduled_ages
from tasks.health import touch
from tasks.periodic import run
from tasks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Scheduler"]

TIME_BUDGET = 10  # seconds; beat does nothing else meanwhile
SPREAD = 1.5  # seconds that the runs which are overdue at the start are spread over
RETRY = 5  # seconds until the record is read again, or a run is sent again, after it failed
PATIENCE = 2  # seconds for an answer about the record

log = get_logger(__name__)


@cache
def record() -> tuple[Client, Keys]:
    """Return a client of the record of the runs, made when beat first needs it, and the keys."""
    settings = Settings.from_env()
    return connect(settings.redis_url, timeout=PATIENCE, retries=1), Keys(settings.prefix, settings.shards)


class Scheduler(CeleryScheduler):  # type: ignore[misc]  # celery ships no types
    """Celery's in-memory scheduler, with a memory in Redis and a way out of a full Redis.

    Celery's counts every interval from the start of beat: one that is longer than beat lives never ends. So the time
    of each entry's last scheduled run is in the record of the runs, and a beat that starts goes on from there.

    A full Redis refuses the publish of the very task that would free memory. The sweeps need no broker, and their
    scripts are allowed to run out of memory, so beat runs the due one itself and goes on as before.
    """

    _heap: Any  # Celery's: entries by the time of their next run; None to sort them anew
    _record = staticmethod(record)
    _recalled = False  # whether the record has been read
    _recall_at = 0.0
    _unsent: Any = None  # the entry of this tick, if it could not be sent

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        """Show that beat lives, then do what is due."""
        touch()
        if not self._recalled and time.monotonic() >= self._recall_at:
            self._recall()
        delay = super().tick(*args, **kwargs)
        if self._unsent:
            self._send_later(self._unsent)
            self._unsent = None
        return delay

    def _recall(self) -> None:
        """Take from the record when each entry was last scheduled; while it cannot be read, go on without."""
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
            else:  # no beat has seen this cron expression: only what it misses from now on is caught up
                self._note(name)
        self._heap = None

    def populate_heap(self, *args: Any, **kwargs: Any) -> None:
        """Sort the entries by their next run, those that are due already a little apart."""
        super().populate_heap(*args, **kwargs)
        now = time.time()
        due = sum(event.time <= now for event in self._heap)
        self._heap = [
            event._replace(time=event.time + SPREAD * number / due) if number < due else event
            for number, event in enumerate(sorted(self._heap))
        ]
        heapq.heapify(self._heap)

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Publish a due entry; run it here when Redis has no room for it, and say in one line what went wrong."""
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except SchedulingError as error:
            if any(isinstance(cause, OutOfMemoryError) for cause in causes(error)):
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
        """Leave an entry due that could not be sent: Celery would send it an interval later, which may be a day."""
        self.schedule[entry.name] = entry
        again = self._when(entry, RETRY)
        self._heap = [
            event._replace(time=min(event.time, again), entry=entry) if event.entry.name == entry.name else event
            for event in self._heap
        ]
        heapq.heapify(self._heap)

    def _clean_here(self, entry: Any) -> bool:
        """Run the sweep of an entry, and return whether it ran; tasks that another app added need a worker."""
        clean = getattr(cleaning, entry.task.removeprefix("tasks."), None)
        if not entry.task.startswith("tasks.clean_") or clean is None:
            log.warning("Redis is full: %s cannot be sent", entry.name)
            return False
        try:
            report = run(clean, entry.kwargs, time_budget=TIME_BUDGET)
        except (RedisError, ChatError) as error:
            log.warning("Redis is full, and beat cannot clean: %s", error)
            return False
        # A logger for each sweep, so that the one that frees nothing does not silence the one that does.
        log.getChild(clean.__name__).warning("Redis is full, beat cleans by itself: %s", report)
        return True


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from."""
    while error:
        yield error
        error = error.__cause__ or error.__context__
