"""Checks of callers' arguments: each returns its value ready for Redis, or raises what was and what is allowed."""

from typing import Any

from chat._errors import InvalidArgumentError
from chat.store.keys import encode_text

__all__ = ["LONGEST", "MOST", "at_least", "milliseconds", "name_of", "safe_repr", "short", "shown"]

MAX_NAME = 200  # characters
LONGEST = 1e10  # seconds; three hundred years
MOST = 1_000_000  # messages that a call asks for
EXACT = 2**53 - 1  # numbers above it are not exact in Lua
SHOWN = 200  # characters of a value in a message


def name_of(kind: str, name: Any) -> bytes:
    """Return the encoded name of a channel, client or key: any str of 1 to 200 characters."""
    if isinstance(name, str) and 0 < len(name) <= MAX_NAME:
        return encode_text(name)
    was = f"{len(name)} characters long" if isinstance(name, str) else shown(name)
    message = f"{kind} is {was}, must be a str of 1 to {MAX_NAME} characters"
    raise InvalidArgumentError(message)


def at_least(low: int, kind: str, value: Any, otherwise: str = "", *, most: int = EXACT) -> int:
    """Return a whole number of at least `low` and at most `most`."""
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= most:
        return value
    message = f"{kind} is {shown(value)}, must be a whole number of at least {low} and at most {most}{otherwise}"
    raise InvalidArgumentError(message)


def milliseconds(kind: str, seconds: Any) -> int:
    """Return a span of time given in seconds, 0 or more, in ms."""
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds <= LONGEST:
        return round(seconds * 1000)
    message = f"{kind} is {shown(seconds)}, must be a number of seconds, 0 or more and at most {LONGEST:.0f}"
    raise InvalidArgumentError(message)


def safe_repr(value: Any) -> str:
    """Return a value as Python writes it, also one that Python refuses to write: a number of 5,000 digits, say."""
    try:
        return repr(value)
    except (ValueError, RecursionError):
        return "too large to show"


def short(text: str) -> str:
    """Return the beginning of a text, as long as a message of one line may hold."""
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def shown(value: Any) -> str:
    """Return a value as a message shows it."""
    return short(safe_repr(value))
