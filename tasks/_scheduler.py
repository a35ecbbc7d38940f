"""Beat's scheduler: when Redis is too full to take a task, beat cleans in its own process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.beat import Scheduler as CeleryScheduler
from celery.beat import SchedulingError
from celery.utils.log import get_logger
from redis.exceptions import OutOfMemoryError, RedisError

from chat import ChatError, cleaning
from tasks.cleaning import run
from tasks.health import touch

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Scheduler"]

TIME_BUDGET = 10  # seconds; beat does nothing else meanwhile

log = get_logger(__name__)


class Scheduler(CeleryScheduler):  # type: ignore[misc]  # celery ships no types
    """Celery's in-memory scheduler, that knows a way out of a full Redis.

    A full Redis refuses the publish of the very task that would free memory. The sweeps need no broker, and their
    scripts are allowed to run out of memory, so beat runs the due one itself and goes on as before.
    """

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        """Show that beat lives, then do what is due."""
        touch()
        return super().tick(*args, **kwargs)

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Publish a due entry; run it here when Redis has no room for it, and say in one line what went wrong."""
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except SchedulingError as error:
            if any(isinstance(cause, OutOfMemoryError) for cause in causes(error)):
                self._clean_here(entry)
            else:
                log.warning("%s", error)
        else:
            log.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)

    def _clean_here(self, entry: Any) -> None:
        """Run the sweep of an entry; another app may have added tasks of its own, which need a worker."""
        clean = getattr(cleaning, entry.task.removeprefix("tasks."), None)
        if not entry.task.startswith("tasks.clean_") or clean is None:
            log.warning("Redis is full: %s cannot be sent", entry.name)
            return
        try:
            report = run(clean, entry.kwargs, time_budget=TIME_BUDGET)
        except (RedisError, ChatError) as error:
            log.warning("Redis is full, and beat cannot clean: %s", error)
        else:
            # A logger for each sweep, so that the one that frees nothing does not silence the one that does.
            log.getChild(clean.__name__).warning("Redis is full, beat cleans by itself: %s", report)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from."""
    while error:
        yield error
        error = error.__cause__ or error.__context__
