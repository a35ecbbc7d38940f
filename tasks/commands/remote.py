"""A sweep through a worker: ask who is there, send it, follow it, and bring its report home, or what became of it."""

from __future__ import annotations

import dataclasses
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from click import ClickException
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from chat import ChatError
from tasks.cleaning import Report
from tasks.periodic import chat_redis
from tasks.stats.figures import read_stats

if TYPE_CHECKING:
    from celery import Celery
    from celery.result import AsyncResult

    from tasks.commands.console import Bar

__all__ = ["WorkerError", "run_in_worker"]

ANSWER = 1.0  # seconds that workers have to answer
TAKEN = 60  # seconds until a sweep that no worker had time for is dropped
LONGEST = TAKEN + 90  # seconds until nothing is to be expected any more; above the hard time limit
LOOK = 1  # seconds between two looks whether all is well
QUIET = 3  # seconds without news until that is shown
DOUBT = 10  # seconds without news until its worker is asked whether it lives, and until it is asked again
LIVES = 5  # seconds that it has to answer, twice: a worker that works is never so long without a look at its mail


class WorkerError(ClickException):
    """Raised when a worker did not finish a sweep; says what to do."""


@dataclasses.dataclass
class Run:
    """What is known of a sweep that a worker was given."""

    bar: Bar | None = None
    before: int = 0  # messages removed from the chat, ever, when it was sent
    node: str = ""  # the worker that began it
    done: int = 0  # channels
    total: int = 0
    broken_off: str = ""  # how far it was when its process died and another one began anew
    heard: float = dataclasses.field(default_factory=time.monotonic)  # when something was new
    asked: float = 0.0  # when its worker was last asked whether it lives
    process: int = 0  # the worker's process that began it
    meta: Any = None  # what was stored with the last state

    def hear(self, stored: dict[str, Any]) -> None:
        """Take in a state that the worker has stored, which may be the last one again."""
        state, meta = stored["status"], stored["result"]
        if state not in {"STARTED", "PROGRESS"} or meta == self.meta:
            return
        self.meta, self.heard, self.node = meta, time.monotonic(), meta.get("hostname", self.node)
        if state == "PROGRESS":
            self.done, self.total = meta["done"], meta["total"]
            if self.bar:
                self.bar(self.done, self.total)
        elif self.process != meta["pid"]:
            self.broken_off = self.so_far() if self.process else ""
            self.process = meta["pid"]

    def doubtful(self) -> bool:
        """Return whether nothing was new for so long that its worker should be asked; show the silence before that."""
        now = time.monotonic()
        if self.bar and now - self.heard >= QUIET:
            self.bar.quiet(now - self.heard)
        if not self.node or now - max(self.heard, self.asked) < DOUBT:
            return False
        self.asked = now
        return True

    def so_far(self) -> str:
        """Return how far it came, and what went meanwhile."""
        came = f"at {self.done:,} of {self.total:,} channels" if self.total else "before it told how far it was"
        with suppress(ChatError, RedisError):
            return f"{came}; {max(0, removed() - self.before):,} messages were removed meanwhile"
        return came


def run_in_worker(app: Celery, sweep: str, overrides: dict[str, Any], bar: Bar | None = None) -> Report:
    """Run a sweep in a worker and return its report.

    Args:
        app: whose worker.
        sweep: ``clean_channels``, ``clean_backlog`` or ``clean_clients``.
        overrides: keyword arguments of the task.
        bar: shows how far it is.

    Raises:
        WorkerError: no worker answers, has time, or comes to an end.
        ChatError: what the task refused; an InvalidArgumentError, say.
    """
    if not answers(app):
        message = "no worker answers: start one (celery -A tasks worker), or use --now to clean in this process"
        raise WorkerError(message)
    run = Run(bar, before=removed())
    sent = app.tasks[f"tasks.{sweep}"].apply_async(kwargs=overrides, expires=TAKEN)
    try:
        report = follow(app, sent, run)
    except (ChatError, RedisError, WorkerError):  # the task's own, or that it cannot be asked for, or that it died
        raise
    except TaskRevokedError as error:
        raise WorkerError(revoked(str(error), run)) from None
    except KeyboardInterrupt:
        message = f"left alone, it goes on in the worker: celery -A tasks result {sent.id}"
        raise WorkerError(message) from None
    except Exception as error:  # whatever the task raised, or Celery when Redis went away
        what = f"{type(error).__name__}: {error}"
        message = f"no report ({what}), {run.so_far()}: see the worker's log, and celery -A tasks result {sent.id}"
        raise WorkerError(message) from error
    finally:
        give_up(sent)
    if run.broken_off:
        anew = f"its process died {run.broken_off}, and the run began anew: this report counts from there"
        report["error"] = "; ".join(filter(None, [anew, report["error"]]))
    return Report(**report | {"examples": tuple((name, count) for name, count in report["examples"])})


def follow(app: Celery, sent: AsyncResult, run: Run) -> dict[str, Any]:
    """Wait for the report of a sweep; notice when its worker dies, which tells nobody.

    Raises:
        WorkerError: it died, or it takes too long.
    """
    end = time.monotonic() + LONGEST
    while True:
        try:
            return dict(sent.get(timeout=LOOK, on_message=run.hear))
        except CeleryTimeoutError:
            if run.doubtful() and not lives(app, run.node):
                message = f"{run.node} died or is cut off, {run.so_far()}: run it again for the rest"
                raise WorkerError(message) from None
            if time.monotonic() < end:
                continue
            what = f"still running after {LONGEST} s, {run.so_far()}" if run.meta else "no worker took it"
            message = f"no report: {what}; see the worker's log, and celery -A tasks result {sent.id}"
            raise WorkerError(message) from None


def give_up(sent: AsyncResult) -> None:
    """Expect no more of a sweep: Celery would do so while the interpreter exits, and fail with a traceback."""
    with suppress(RedisError, OperationalError, OSError):
        sent.backend.remove_pending_result(sent)
    sent.backend = None


def revoked(reason: str, run: Run) -> str:
    """Return what to say of a sweep that a worker discarded: ``expired``, ``revoked`` or ``terminated``."""
    if run.meta and reason == "expired":  # a killed worker's task comes back, too late
        return f"{run.node or 'its worker'} died, {run.so_far()}: run it again for the rest"
    if run.meta:
        return f"somebody ended it ({reason}), {run.so_far()}: run it again for the rest"
    if reason == "expired":
        return f"no worker had time within {TAKEN} s, nothing was done: try again, or use --now"
    return f"somebody took it back ({reason}) before it began, nothing was done"


def removed() -> int:
    """Return how many messages were ever removed from the chat."""
    client, settings = chat_redis()
    return read_stats(client, settings=settings).removed


def lives(app: Celery, node: str) -> bool:
    """Return whether a worker answers; also True while the broker cannot be asked."""
    try:
        return any(app.control.ping(destination=[node], timeout=LIVES, limit=1) for _ in range(2))
    except (OperationalError, RedisError):
        return True
    finally:
        forget_replies(app)


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
