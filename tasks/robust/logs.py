"""Logs that stay readable while Redis is full or away: one line an event, and repetitions counted.

Celery and kombu then log a stack trace at each attempt, tens of lines a second. This filter folds errors that are known
to pass by themselves into one line, and counts repetitions within PAUSE seconds instead of writing them.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from celery.signals import after_setup_logger, after_setup_task_logger
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

__all__ = ["OneLine"]

PAUSE = 30  # seconds before the same event is written again
LONGEST = 400  # characters of a line
KNOWN = (RedisError, OperationalError, OSError)  # their message says all, the stack trace nothing more
TALKATIVE = (  # loggers that repeat a message at each attempt, or spread it over many lines
    "celery.beat",
    "celery.worker.consumer",
    "py.warnings",
    *(f"{__package__.removesuffix('robust')}{module}" for module in ("robust.broker", "robust.scheduler", "health")),
)


class OneLine(logging.Filter):
    """Folds known errors and talkative loggers into one line, and drops repetitions."""

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[tuple[str, int, str], float] = {}
        self._dropped: dict[tuple[str, int, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write a record; fold it first if it is of a known kind."""
        error = record.exc_info[1] if record.exc_info else None
        known = isinstance(error, KNOWN) or record.name.startswith(TALKATIVE)
        if record.levelno < logging.WARNING or not known:
            return True
        event = (record.name, record.lineno, type(error).__name__)
        now = time.monotonic()
        if now < self._next.get(event, now):
            self._dropped[event] = self._dropped.get(event, 0) + 1
            return False
        self._next[event] = now + PAUSE
        again = self._dropped.pop(event, 0)
        record.msg = _fold(record, error) + (f" ({again} more times since)" if again else "")
        record.args = record.exc_info = record.exc_text = record.stack_info = None
        return True


def _fold(record: logging.LogRecord, error: BaseException | None) -> str:
    """Return a record's message as one line, with its error unless the message has it already."""
    line = " ".join(record.getMessage().split())
    if error is not None and str(error) not in line:
        line += f": {type(error).__name__}: {' '.join(str(error).split())}"
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def _install(logger: logging.Logger, **_: Any) -> None:
    """Add the filter to the handlers of worker and beat."""
    logging.captureWarnings(capture=True)
    for handler in logger.handlers:
        if not any(isinstance(one, OneLine) for one in handler.filters):
            handler.addFilter(OneLine())


after_setup_logger.connect(_install)
after_setup_task_logger.connect(_install)
