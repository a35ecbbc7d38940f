"""What the ``chat`` command prints: messages and names to stdout, all else to stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chat.screen import OutputError, counted, drop_output, printable, say

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chat._values import Check, Message

__all__ = ["line_of", "print_check", "print_lines", "write"]


def print_lines(lines: Iterable[str], none: str) -> None:
    """Print lines as they come, or say that there are none."""
    is_empty = True
    for line in lines:
        print(line)
        is_empty = False
    if is_empty:
        say(none)


def print_check(found: Check, client: str, channel: str) -> None:
    """Print messages to stdout, and what else a check says to stderr."""
    if found.new:
        say(f"{printable(client)} is new in {printable(channel)}")
    if found.missed:
        say(f"{counted(found.missed, 'message')} {'was' if found.missed == 1 else 'were'} cleaned away unread")
    if found:
        read = f"{counted(len(found), 'message')} up to id {found.messages[-1].id} counted as read, but not written"
        done = f"{read}, chat history {printable(channel)} shows what is stored"
        for message in found:
            write(line_of(message), done)
    if found.more:
        say("more are waiting")


def write(line: str, done: str) -> None:
    """Print a line at once; the error, if it cannot be written, says what was done."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        message = f"{done}: {error.strerror}"
        raise OutputError(message) from error


def line_of(message: Message) -> str:
    return f"{message.id}  {message.sent_at.astimezone():%H:%M:%S}  {printable(message.body)}"
