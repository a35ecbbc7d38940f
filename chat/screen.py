"""Output of commands: text that cannot steer a terminal; counts, ages and sizes; a stdout that is closed or full."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Any

from chat._errors import InvalidArgumentError

__all__ = [
    "OutputError",
    "age",
    "confirm_pause",
    "counted",
    "drop_output",
    "noun",
    "open_output",
    "printable",
    "say",
    "size",
    "unwritable",
]

MINUTE, HOUR, DAY = 60, 3600, 86400
LONGEST_PAUSE = DAY  # seconds between two looks of a watch


class OutputError(Exception):
    """Raised when a command did its work and could not print the result; the message says what was done."""


def open_output() -> None:
    """Prepare stdout: writing to a closed one fails, as on a full disk; characters it cannot encode are escaped."""
    if sys.stdout is None:  # Python's way to say that it is closed; it would discard everything
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def drop_output() -> None:
    """Discard what stdout still holds and all that follows, or Python fails on it again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def unwritable(error: OSError) -> str:
    """Discard the rest of the output and return the line that says why it cannot be written."""
    drop_output()
    return f"the output cannot be written: {error.strerror}"


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
