"""What callers may pass: each check returns its value ready for Redis, or raises what was and what is allowed."""

from typing import Any

from chat._errors import InvalidArgumentError
from chat._keys import encode_text

__all__ = ["LONGEST", "at_least", "milliseconds", "name_of"]

MAX_NAME = 200  # characters
LONGEST = 1e10  # seconds; three hundred years


def name_of(kind: str, name: Any) -> bytes:
    """Return the encoded name of a channel, client or key: any str of 1 to 200 characters."""
    if isinstance(name, str) and 0 < len(name) <= MAX_NAME:
        return encode_text(name)
    was = f"{len(name)} characters long" if isinstance(name, str) else repr(name)
    message = f"{kind} is {was}, must be a str of 1 to {MAX_NAME} characters"
    raise InvalidArgumentError(message)


def at_least(low: int, kind: str, value: Any, otherwise: str = "") -> int:
    """Return a whole number of at least `low`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= low:
        return value
    message = f"{kind} is {value!r}, must be a whole number of at least {low}{otherwise}"
    raise InvalidArgumentError(message)


def milliseconds(kind: str, seconds: Any) -> int:
    """Return a span of time given in seconds, 0 or more, in ms."""
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds <= LONGEST:
        return round(seconds * 1000)
    message = f"{kind} is {seconds!r}, must be a number of seconds, 0 or more"
    raise InvalidArgumentError(message)
