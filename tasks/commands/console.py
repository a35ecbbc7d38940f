"""What the operator's commands share: exit codes, and rich output on a terminal."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TextIO

from click import get_current_context
from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from chat import ChatError
from chat.screen import DONE, FAILED, age, exit_codes, say
from chat.settings import unknown_names
from chat.store.explain import describe_outage
from tasks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import ConsoleOptions, RenderableType
    from rich.table import Table

__all__ = [
    "DONE",
    "FAILED",
    "INCOMPLETE",
    "RUNNING",
    "Bar",
    "Fitting",
    "celery_command",
    "console",
    "running",
    "write",
]

INCOMPLETE, RUNNING = 3, 4  # exit codes beside those of chat.screen
UNLIMITED = 10_000  # columns where no terminal ends the line


@contextmanager
def running(command: str) -> Iterator[None]:
    """Run the body of a command; print an error as one line and exit with its code."""
    with exit_codes(command, _describe):
        for line in unknown_names():
            say(f"{command}: {line}")
        yield


def _describe(error: Exception) -> tuple[int, str] | None:
    if isinstance(error, RedisConnectionError | RedisTimeoutError | InvalidResponse):
        return FAILED, describe_outage(error, Settings.from_env().redis_url)
    if isinstance(error, OperationalError):  # kombu's
        return FAILED, describe_outage(error, Settings.from_env().broker_url)
    return (FAILED, str(error)) if isinstance(error, ChatError | RedisError) else None


def celery_command() -> str:
    """Return how `celery` was called, with its app."""
    context = get_current_context(silent=True)
    app = context and context.find_root().params.get("app")
    return f"celery -A {app}" if isinstance(app, str) else "celery -A tasks"


def console(stream: TextIO) -> Console:
    """Return a rich console: styled on a terminal, plain lines of any length elsewhere. No text is taken for markup."""
    terminal = stream.isatty()
    width = None if terminal else UNLIMITED
    return Console(file=stream, force_terminal=terminal, width=width, markup=False, emoji=False, highlight=False)


def write(*parts: RenderableType) -> None:
    """Print to stdout. Rich only renders, because it exits by itself where nobody reads."""
    out = console(sys.stdout)
    with out.capture() as rendered:
        out.print(*parts, sep="\n")
    print(rendered.get(), end="", flush=True)


class Fitting:
    """The first of some tables that fits into the width of the terminal, or the last."""

    def __init__(self, *tables: Table) -> None:
        self._tables = tables

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """Yield one table."""
        anywhere = options.update(max_width=UNLIMITED)
        fit = (one for one in self._tables if console.measure(one, options=anywhere).maximum <= options.max_width)
        yield next(fit, self._tables[-1])


class Bar:
    """A progress bar on a terminal's stderr, nothing elsewhere; called with the number of channels done and due.

    Args:
        label: stands before it.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __call__(self, done: int, total: int) -> None:
        """Show how far it is."""
        if self._bar is None and sys.stderr is not None and sys.stderr.isatty():
            self._bar = Progress(
                console=console(sys.stderr), transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._bar.add_task(f"{self._label:15}", total=total)
            self._bar.start()
        if self._bar:
            self._bar.columns = (*COLUMNS, TimeRemainingColumn())
            self._bar.update(self._bar.task_ids[0], completed=done, total=total)

    def quiet(self, seconds: float) -> None:
        """Show for how long there was no news, in place of an estimate that no longer holds."""
        if self._bar:
            self._bar.columns = (*COLUMNS, TextColumn(f"no news for {age(seconds)}"))

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._bar.stop()


COLUMNS = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
