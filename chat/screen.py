"""What commands share: exit codes, text that cannot steer a terminal, counts, ages and sizes."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

import click

from chat._errors import InvalidArgumentError, SettingsError, ShardsMismatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "BAD_INPUT",
    "DONE",
    "FAILED",
    "OutputError",
    "age",
    "confirm_pause",
    "counted",
    "drop_output",
    "exit_codes",
    "noun",
    "printable",
    "say",
    "size",
]

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
MINUTE, HOUR, DAY = 60, 3600, 86400
LONGEST_PAUSE = DAY  # seconds between two looks of a watch


class OutputError(Exception):
    """Raised when a command did its work and could not print the result; the message says what was done."""


@contextmanager
def exit_codes(command: str, describe: Callable[[Exception], tuple[int, str] | None]) -> Iterator[None]:
    """Run the body of a command; print an error as one line and exit with its code.

    Args:
        command: what stands before the line.
        describe: returns code and line of an error other than bad input or a failed output; None for a bug.
    """
    _open_output()
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # `... | head -1`
        drop_output()
    except (KeyboardInterrupt, click.Abort) as interrupt:  # Abort: at a question
        say(f"\n{command}: {interrupt}" if str(interrupt) else "")
        sys.exit(INTERRUPTED)
    except Exception as error:
        described = _describe(error, command) or describe(error)
        if not described:
            raise
        code, line = described
        say(f"{command}: {' '.join(line.split())}")
        sys.exit(code)


def _describe(error: Exception, command: str) -> tuple[int, str] | None:
    """Return the exit code of bad input or a failed output, and the line that describes it."""
    if isinstance(error, SettingsError | ShardsMismatchError | InvalidArgumentError):
        return BAD_INPUT, str(error)
    if isinstance(error, OSError) and not error.filename and error.errno is not None:
        drop_output()
        return FAILED, f"the output cannot be written: {error.strerror}"
    if isinstance(error, OSError):
        return BAD_INPUT, str(error)
    if isinstance(error, click.UsageError):
        text = error.format_message()
        return BAD_INPUT, f"{text}{'' if text.endswith(('.', '?')) else '.'} See {command} --help."
    return (FAILED, str(error)) if isinstance(error, click.ClickException | OutputError) else None


def _open_output() -> None:
    """Prepare stdout: writing to a closed one fails, as on a full disk; characters it cannot encode are escaped."""
    if sys.stdout is None:  # Python's way to say that it is closed; it would discard everything
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def drop_output() -> None:
    """Discard what stdout still holds and all that follows, or Python fails on it again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(line: str) -> None:
    """Print a line to stderr; a closed or full stderr is ignored."""
    with suppress(OSError):
        if sys.stderr is not None:
            print(line, file=sys.stderr, flush=True)  # noqa: T201  commands talk through this


def printable(value: Any) -> str:
    """Return a name or a body as text without control characters; JSON escapes them."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)


def counted(count: int, kind: str) -> str:
    """Return a number with its noun: ``1 message``, ``1,200 messages``."""
    return f"{count:,} {noun(count, kind)}"


def noun(count: float, kind: str) -> str:
    """Return the singular or plural of a noun that takes an s."""
    return kind if count == 1 else f"{kind}s"


def age(seconds: float | None) -> str:
    """Return a rounded span of time: ``12 s``, ``3 min``, ``5 h``, ``2 days``; ``-`` for None."""
    if seconds is None:
        return "-"
    for unit, name in ((DAY, "days"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.1f} s" if 0 < seconds < 1 else f"{seconds:.0f} s"


def size(count: float) -> str:
    """Return a rounded number of bytes: ``1.2 MB``, ``12 MB``."""
    for name in ("bytes", "kB", "MB", "GB"):
        if count < 1000:  # noqa: PLR2004  decimal, as operators' tools count
            return f"{count:.1f} {name}" if count < 10 and name != "bytes" else f"{count:.0f} {name}"  # noqa: PLR2004
        count /= 1000
    return f"{count:.1f} TB"


def confirm_pause(every: float) -> None:
    """Refuse an ``--every`` that is no pause between two looks of a watch."""
    if not 0 < every <= LONGEST_PAUSE:
        message = f"--every is {every:g}, must be a number of seconds above 0, at most {LONGEST_PAUSE}"
        raise InvalidArgumentError(message)
