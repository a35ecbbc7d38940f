"""The three Celery tasks: each runs one sweep of ``tasks.cleaning``, where the rules are, and logs its report.

`run_sweep` also runs a sweep without a worker, for beat and the commands.
"""

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
from tasks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Task

    from chat.store.nodes import Client

__all__ = ["TIME_BUDGET", "chat_redis", "clean_backlog", "clean_channels", "clean_clients", "run_sweep"]

TIME_BUDGET = 40  # seconds; below celeryconfig's soft time limit, so that a sweep ends by itself
# Celery raises this Exception wherever a task happens to be, in a user's function too. A sweep must not treat it as a
# failure of that function, and `tasks.cleaning` knows no Celery.
ENDS = (SoftTimeLimitExceeded,)
OPTIONS = {"shards", "dry_run"}  # those of every sweep that a caller may set, beside the limits

log = get_task_logger(__name__)


class TaskResult(UserDict[str, Any]):
    """A report as a task's result: stored as a JSON object, shown as one line by Flower and in the log."""

    def __init__(self, report: cleaning.Report) -> None:
        super().__init__(dataclasses.asdict(report))
        self._line = str(report).removeprefix(f"{report.sweep}: ")  # Flower and the log name the task

    def __repr__(self) -> str:
        """Return what Celery's events and log show of a result."""
        return self._line

    def __json__(self) -> dict[str, Any]:
        """Return what Celery's serializer stores."""
        return self.data


class BadOverrideError(ClickException, InvalidArgumentError):
    """Raised by a task for an argument that is not allowed: a click exception is one line in ``celery result``."""


# Errors of the chat, such as a bad argument, are one line in the log, without a traceback.
sweep_task = partial(shared_task, bind=True, throws=(ChatError,))


@sweep_task(name="tasks.clean_channels")
def clean_channels(self: Task, *args: Any, **overrides: Any) -> TaskResult:
    """Remove idle channels. Overrides: channel_timeout, shards, dry_run."""
    return _sweep(self, cleaning.clean_channels, args, overrides)


@sweep_task(name="tasks.clean_backlog")
def clean_backlog(self: Task, *args: Any, **overrides: Any) -> TaskResult:
    """Trim channels to their backlog. Overrides: backlog, message_timeout, shards, dry_run."""
    return _sweep(self, cleaning.clean_backlog, args, overrides)


@sweep_task(name="tasks.clean_clients")
def clean_clients(self: Task, *args: Any, **overrides: Any) -> TaskResult:
    """Forget expired clients. Overrides: client_timeout, shards, dry_run."""
    return _sweep(self, cleaning.clean_clients, args, overrides)


def _sweep(
    task: Task, clean: Callable[..., cleaning.Report], args: tuple[Any, ...], overrides: dict[str, Any]
) -> TaskResult:
    """Run the sweep of a task, log its report and return it."""

    def progress(done: int, total: int) -> None:
        with suppress(OperationalError, RedisError):  # a failed progress update must not abort the sweep
            # Flower shows only the fields that it knows of a task: `result` is free until the report comes.
            shown = f"{done:,} of {total:,} channels ({done / max(1, total):.0%})"
            task.send_event("task-progress", done=done, total=total, result=shown)
            if task.request.id and not task.request.ignore_result:  # the clean command shows it
                meta = {"done": done, "total": total, "hostname": task.request.hostname}
                task.update_state(state="PROGRESS", meta=meta)

    try:
        report = run_sweep(clean, overrides, *args, progress=progress)
    except InvalidArgumentError as error:
        raise BadOverrideError(str(error)) from None
    log.info("%s", report)
    return TaskResult(report)


def run_sweep(
    clean: Callable[..., cleaning.Report],
    overrides: dict[str, Any],
    *args: Any,
    time_budget: float | None = TIME_BUDGET,
    progress: Callable[[int, int], object] | None = None,
) -> cleaning.Report:
    """Run a sweep with the settings of this process and the overrides of this call.

    Raises:
        InvalidArgumentError: an argument that the sweep does not take, or a value that is not allowed.
    """
    limits = {name for name, limit in inspect.signature(clean).parameters.items() if limit.kind is limit.KEYWORD_ONLY}
    allowed = sorted(limits | OPTIONS)
    unknown = [repr(arg) for arg in args] + [name for name in overrides if name not in allowed]
    if unknown:
        message = f"{', '.join(unknown)}: no argument of {clean.__name__}, must be keywords among {', '.join(allowed)}"
        raise InvalidArgumentError(message)
    client, settings = chat_redis()
    return clean(client, settings=settings, time_budget=time_budget, progress=progress, ends=ENDS, **overrides)


@cache
def chat_redis() -> tuple[Client, Settings]:
    """Return this process's client and settings, made at its first task: a connection must not cross the fork."""
    settings = Settings.from_env()
    return connect(settings.redis_url), settings
