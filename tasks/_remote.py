"""A sweep through a worker: ask who is there, send it, follow it, and bring its report home."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from celery.exceptions import TaskRevokedError
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from chat import ChatError
from chat.cleaning import Report

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

__all__ = ["WorkerError", "run_in_worker"]

ANSWER = 1.0  # seconds that workers have to answer
TAKEN = 60  # seconds until a sweep that no worker had time for is dropped
LONGEST = TAKEN + 90  # seconds until nothing is to be expected any more; above the hard time limit


class WorkerError(Exception):
    """Raised when a worker did not bring a sweep to its end; says what to do."""


def run_in_worker(
    app: Celery, sweep: str, overrides: dict[str, Any], progress: Callable[[int, int], object] | None = None
) -> Report:
    """Run a sweep in a worker and return its report.

    Args:
        app: whose worker.
        sweep: ``clean_channels``, ``clean_backlog`` or ``clean_clients``.
        overrides: keyword arguments of the task.
        progress: called with the number of candidates handled and due.

    Raises:
        WorkerError: no worker answers, has time, or comes to an end.
        ChatError: what the task refused; an InvalidArgumentError, say.
    """
    if not answers(app):
        message = "no worker answers: start one (celery -A tasks worker), or use --now to clean in this process"
        raise WorkerError(message)
    sent = app.tasks[f"tasks.{sweep}"].apply_async(kwargs=overrides, expires=TAKEN)

    def follow(stored: dict[str, Any]) -> None:
        if progress and stored["status"] == "PROGRESS":
            progress(stored["result"]["done"], stored["result"]["total"])

    try:
        report: dict[str, Any] = sent.get(timeout=LONGEST, on_message=follow)
    except (ChatError, RedisError):  # the task's own, or that it cannot be asked for
        raise
    except TaskRevokedError:
        message = f"no worker had time within {TAKEN} s, nothing was done: try again, or use --now"
        raise WorkerError(message) from None
    except KeyboardInterrupt:
        message = f"left alone, it goes on in the worker: celery -A tasks result {sent.id}"
        raise WorkerError(message) from None
    except Exception as error:  # whatever the task raised, or Celery when Redis went away
        what = f"{type(error).__name__}: {error}"
        message = f"no report ({what}): see the worker's log, and celery -A tasks result {sent.id}"
        raise WorkerError(message) from error
    return Report(**dict(report) | {"examples": tuple((name, count) for name, count in report["examples"])})


def answers(app: Celery) -> bool:
    """Return whether a worker takes tasks from our queue: at the first answer, or when all had time to answer."""
    try:
        for limit in (1, None):
            workers = app.control.inspect(timeout=ANSWER, limit=limit).active_queues() or {}
            if any(queue["name"] == app.conf.task_default_queue for queues in workers.values() for queue in queues):
                return True
        return False
    finally:
        forget_replies(app)


def forget_replies(app: Celery) -> None:
    """Delete the queue of answers: those that come after the first would stay for ever."""
    with suppress(RedisError, OperationalError), app.connection_for_write() as connection:
        app.control.mailbox.get_reply_queue()(connection.default_channel).delete()
