"""Run a sweep in a worker: see that a worker listens, send the task, follow its progress, return its report.

Where there is no report, the error says why.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from celery.exceptions import NotRegistered, TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from click import ClickException
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from chat import ChatError
from tasks.cleaning import Report
from tasks.commands.console import celery_command
from tasks.commands.task_state import TaskState, removed

if TYPE_CHECKING:
    from celery import Celery
    from celery.result import AsyncResult

    from tasks.commands.console import Bar

__all__ = ["WorkerError", "run_in_worker"]

PERIODIC = f"{__name__.partition('.commands')[0]}.periodic"  # the module of the tasks
INSPECT_TIMEOUT = 1.0  # seconds that workers have to answer
EXPIRES = 60  # seconds until a task that no worker had time for is discarded
LONGEST = EXPIRES + 90  # seconds until a report is no longer expected; above the hard time limit
POLL = 1  # seconds between two checks of the task
PING_TIMEOUT = 5  # seconds, of each of two pings; a busy worker still answers a ping within this time


class WorkerError(ClickException):
    """Raised when a worker did not finish a sweep; says what to do."""


def run_in_worker(app: Celery, sweep: str, overrides: dict[str, Any], bar: Bar | None = None) -> Report:
    """Run a sweep in a worker and return its report.

    Args:
        app: the app whose worker runs the sweep.
        sweep: ``clean_channels``, ``clean_backlog`` or ``clean_clients``.
        overrides: keyword arguments of the task.
        bar: progress bar.

    Raises:
        WorkerError: no worker answers, has time, or finishes the sweep.
        ChatError: the task's own error, such as an InvalidArgumentError.
        KeyboardInterrupt: Ctrl-C was pressed; says that the sweep goes on.
    """
    if not answers(app):
        message = f"no worker answers: start one ({celery_command()} worker), or use --now to clean in this process"
        raise WorkerError(message)
    state = TaskState(bar, before=removed())
    sent = app.tasks[f"tasks.{sweep}"].apply_async(kwargs=overrides, expires=EXPIRES)
    try:
        report = _follow(app, sent, state)
    except (ChatError, RedisError, WorkerError):  # of the task, of Redis, or of a dead worker
        raise
    except TaskRevokedError as error:
        raise WorkerError(_revoked(str(error), state)) from None
    except NotRegistered:
        what = f'add include=["{PERIODIC}"] to it, or use --now'
        message = f"the workers of this app do not have tasks.{sweep}: {what}"
        raise WorkerError(message) from None
    except KeyboardInterrupt:
        message = f"left alone, it goes on in the worker: {celery_command()} result {sent.id}"
        raise KeyboardInterrupt(message) from None
    except Exception as error:  # whatever the task raised, or Celery when Redis went away
        what = f"{type(error).__name__}: {error}"
        message = f"no report ({what}), {state.so_far()}: {_look(sent)}"
        raise WorkerError(message) from error
    finally:
        stop_waiting(sent)
    if state.restarted_after:
        anew = f"its process died {state.restarted_after}, and the run began anew: this report counts from there"
        report["error"] = "; ".join(filter(None, [anew, report["error"]]))
    return Report(**report | {"examples": tuple((name, count) for name, count in report["examples"])})


def _follow(app: Celery, sent: AsyncResult, state: TaskState) -> dict[str, Any]:
    """Wait for the report of a sweep, and ping its worker, because a worker that dies sends nothing.

    Raises:
        WorkerError: the worker died, or the task takes too long.
    """
    end = time.monotonic() + LONGEST
    while True:
        try:
            return dict(sent.get(timeout=POLL, on_message=state.update))
        except CeleryTimeoutError:
            if state.should_ping() and not is_alive(app, state.node):
                message = f"{state.node} died or is cut off, {state.so_far()}: run it again for the rest"
                raise WorkerError(message) from None
            if time.monotonic() < end:
                continue
            what = f"still running after {LONGEST} s, {state.so_far()}" if state.meta else "no worker took it"
            message = f"no report: {what}; {_look(sent)}"
            raise WorkerError(message) from None


def _look(sent: AsyncResult) -> str:
    """Return where to look for what became of a task."""
    return f"see the worker's log, and {celery_command()} result {sent.id}"


def stop_waiting(sent: AsyncResult) -> None:
    """Stop waiting for a result; otherwise Celery does so while the interpreter exits, and fails with a traceback."""
    with suppress(RedisError, OperationalError, OSError):
        sent.backend.remove_pending_result(sent)
    sent.backend = None


def _revoked(reason: str, state: TaskState) -> str:
    """Return the message for a sweep that a worker discarded: ``expired``, ``revoked`` or ``terminated``."""
    if state.meta and reason == "expired":  # a killed worker's task comes back, too late
        return f"{state.node or 'its worker'} died, {state.so_far()}: run it again for the rest"
    if state.meta:
        return f"somebody ended it ({reason}), {state.so_far()}: run it again for the rest"
    if reason == "expired":
        return f"no worker had time within {EXPIRES} s, nothing was done: try again, or use --now"
    return f"somebody took it back ({reason}) before it began, nothing was done"


def is_alive(app: Celery, node: str) -> bool:
    """Return whether a worker answers; also True while the broker cannot be asked."""
    try:
        return any(app.control.ping(destination=[node], timeout=PING_TIMEOUT, limit=1) for _ in range(2))
    except (OperationalError, RedisError):
        return True
    finally:
        _forget_replies(app)


def answers(app: Celery) -> bool:
    """Return whether a worker takes tasks from our queue: at the first answer, or when all had time to answer."""
    try:
        for limit in (1, None):
            workers = app.control.inspect(timeout=INSPECT_TIMEOUT, limit=limit).active_queues() or {}
            if any(queue["name"] == app.conf.task_default_queue for queues in workers.values() for queue in queues):
                return True
        return False
    finally:
        _forget_replies(app)


def _forget_replies(app: Celery) -> None:
    """Delete the queue of answers: those that come after the first would stay for ever."""
    with suppress(RedisError, OperationalError), app.connection_for_write() as connection:
        app.control.mailbox.get_reply_queue()(connection.default_channel).delete()
