"""Logs that can be read while Redis is full or away: one line an event, and no line again and again.

Celery and kombu log a stack trace at each attempt then, tens of lines a second. What is known, and passes by itself,
is one line here; the same within PAUSE seconds is counted instead of written.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from celery.signals import after_setup_logger, after_setup_task_logger
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

__all__ = ["OneLine"]

PAUSE = 30  # seconds until the same event is written again
LONGEST = 300  # characters of a line
KNOWN = (RedisError, OperationalError, OSError)  # say all in their message, wherever they were raised
TALKATIVE = (  # say it at each attempt, or in many lines
    "celery.beat",
    "celery.worker.consumer",
    "py.warnings",
    *(f"{__package__.removesuffix('robust')}{module}" for module in ("robust.broker", "robust.scheduler", "health")),
)


class OneLine(logging.Filter):
    """Fold what is known into one line, and drop its repetitions."""

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[tuple[str, int, str], float] = {}
        self._dropped: dict[tuple[str, int, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write a record, folded if it is a known trouble."""
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
        record.msg = fold(record, error) + (f" ({again} more times since)" if again else "")
        record.args = record.exc_info = record.exc_text = record.stack_info = None
        return True


def fold(record: logging.LogRecord, error: BaseException | None) -> str:
    """Return a record's message as one line, with its error unless the message has it."""
    line = " ".join(record.getMessage().split())
    if error is not None and str(error) not in line:
        line += f": {type(error).__name__}: {' '.join(str(error).split())}"
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def install(logger: logging.Logger, **_: Any) -> None:
    """Give the handlers that worker and beat log through the filter."""
    logging.captureWarnings(capture=True)
    for handler in logger.handlers:
        if not any(isinstance(one, OneLine) for one in handler.filters):
            handler.addFilter(OneLine())


after_setup_logger.connect(install)
after_setup_task_logger.connect(install)
