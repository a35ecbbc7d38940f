"""What commands write: results to stdout, talk to stderr, also where one of them is closed or full."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper

__all__ = ["OutputError", "counted", "drop_output", "noun", "open_output", "say"]


class OutputError(Exception):
    """Raised when something was done and stdout cannot be written; says what was done."""


def open_output() -> None:
    """Let every write to a closed stdout fail, as to a full disk: Python discards it. Escape what it cannot encode."""
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may not know every character


def drop_output() -> None:
    """Drop what stdout holds and all that follows: Python would try again at its exit, and say so."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(line: str) -> None:
    """Print a line to stderr; whether it can be written changes nothing."""
    with suppress(OSError):
        if sys.stderr is not None:
            print(line, file=sys.stderr, flush=True)


def counted(count: int, kind: str) -> str:
    """Return a number with its noun: ``1 message``, ``1,200 messages``."""
    return f"{count:,} {noun(count, kind)}"


def noun(count: float, kind: str) -> str:
    """Return the noun of a number."""
    return kind if count == 1 else f"{kind}s"
