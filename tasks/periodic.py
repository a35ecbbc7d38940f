"""The three tasks. Each is one call of ``tasks.periodic`` and one log line; rules and limits live there."""

from __future__ import annotations

import dataclasses
import inspect
from collections import UserDict
from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.log import get_task_logger
from click import ClickException
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from chat import ChatError, InvalidArgumentError
from chat.store.connect import connect
from tasks import cleaning
from tasks.cleaning.sweeps import SweepOptions
from tasks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Task

    from chat.store.connect import Client

__all__ = ["clean_backlog", "clean_channels", "clean_clients"]

TIME_BUDGET = 40  # seconds; below the soft time limit of celeryconfig, so that a sweep ends by itself
# Celery raises it wherever a task happens to be, in a function of the user's as well, and it is an Exception like any
# other. `chat` knows no Celery, so it is told here what ends a run.
ENDS = (SoftTimeLimitExceeded,)
OURS = {
    "client",
    "options",
    "time_budget",
    "progress",
    "settings",
    "ends",
}  # arguments that callers of a task do not set

log = get_task_logger(__name__)


class Told(UserDict[str, Any]):
    """A report as a task's result: a JSON object where it is stored, one readable line in Flower and in the log."""

    def __init__(self, report: cleaning.Report) -> None:
        super().__init__(dataclasses.asdict(report))
        self._line = str(report).removeprefix(f"{report.sweep}: ")  # the task's name stands beside it

    def __repr__(self) -> str:
        """Return what Celery's events and log show of a result."""
        return self._line

    def __json__(self) -> dict[str, Any]:
        """Return what Celery's serializer stores."""
        return self.data


class BadOverrideError(ClickException, InvalidArgumentError):
    """Raised by a task for an argument that is not allowed: ``celery result`` prints a click exception in one line."""


# A bad argument is the caller's: one line in the log, no traceback, no retry.
sweep_task = partial(shared_task, bind=True, throws=(ChatError,))


@sweep_task(name="tasks.clean_channels")
def clean_channels(self: Task, *args: Any, **overrides: Any) -> Told:
    """Remove idle channels. Overrides: channel_timeout, shards, dry_run."""
    return _sweep(self, cleaning.clean_channels, args, overrides)


@sweep_task(name="tasks.clean_backlog")
def clean_backlog(self: Task, *args: Any, **overrides: Any) -> Told:
    """Trim channels to their backlog. Overrides: backlog, message_timeout, shards, dry_run."""
    return _sweep(self, cleaning.clean_backlog, args, overrides)


@sweep_task(name="tasks.clean_clients")
def clean_clients(self: Task, *args: Any, **overrides: Any) -> Told:
    """Forget expired clients. Overrides: client_timeout, shards, dry_run."""
    return _sweep(self, cleaning.clean_clients, args, overrides)


def _sweep(task: Task, clean: Callable[..., cleaning.Report], args: tuple[Any, ...], overrides: dict[str, Any]) -> Told:
    """Be the body of a task: run its sweep, log its report and return it as JSON."""

    def progress(done: int, total: int) -> None:
        with suppress(OperationalError, RedisError):  # nobody's progress bar stops a sweep
            # Flower shows of an event what a task has fields for: `result` holds the report later.
            shown = f"{done:,} of {total:,} channels ({done / max(1, total):.0%})"
            task.send_event("task-progress", done=done, total=total, result=shown)
            if task.request.id and not task.request.ignore_result:  # for the command that waits for the report
                meta = {"done": done, "total": total, "hostname": task.request.hostname}
                task.update_state(state="PROGRESS", meta=meta)

    try:
        report = run(clean, overrides, *args, progress=progress)
    except InvalidArgumentError as error:
        raise BadOverrideError(str(error)) from None
    log.info("%s", report)
    return Told(report)


def run(
    clean: Callable[..., cleaning.Report],
    overrides: dict[str, Any],
    *args: Any,
    time_budget: float | None = TIME_BUDGET,
    progress: Callable[[int, int], object] | None = None,
) -> cleaning.Report:
    """Run a sweep with the settings of this process and the overrides of this call.

    Raises:
        InvalidArgumentError: an argument that the sweep has not, or a value that is not allowed.
    """
    allowed = sorted({*inspect.signature(clean).parameters, *SweepOptions.__annotations__} - OURS)
    unknown = [repr(arg) for arg in args] + [name for name in overrides if name not in allowed]
    if unknown:
        message = f"{', '.join(unknown)}: no argument of {clean.__name__}, must be keywords among {', '.join(allowed)}"
        raise InvalidArgumentError(message)
    client, settings = chat_redis()
    return clean(client, settings=settings, time_budget=time_budget, progress=progress, ends=ENDS, **overrides)


@cache
def chat_redis() -> tuple[Client, Settings]:
    """Return this process's client and settings, made at its first task: after the fork, not before."""
    settings = Settings.from_env()
    return connect(settings.redis_url), settings
