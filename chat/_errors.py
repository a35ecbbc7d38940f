"""The errors that the chat raises.

::

    ChatError
    ├── ChatClosedError        RuntimeError
    ├── ChatFullError          redis.exceptions.OutOfMemoryError
    ├── ChecksFailedError      RuntimeError
    ├── InvalidArgumentError   ValueError
    │   ├── InvalidCursorError
    │   └── MessageTooLongError
    ├── KeyReusedError         ValueError
    ├── SettingsError          ValueError
    └── ShardsMismatchError    RuntimeError

When Redis cannot be reached, redis-py's own ``ConnectionError`` and ``TimeoutError`` pass through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from redis.exceptions import OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chat._values import Check

__all__ = [
    "ChatClosedError",
    "ChatError",
    "ChatFullError",
    "ChecksFailedError",
    "InvalidArgumentError",
    "InvalidCursorError",
    "KeyReusedError",
    "MessageTooLongError",
    "SettingsError",
    "ShardsMismatchError",
]


class ChatError(Exception):
    """Base of every error below."""


class ChatClosedError(ChatError, RuntimeError):
    """Raised by a call on a closed chat, and by a wait or a listener that the closing ended."""

    def __init__(self) -> None:
        super().__init__("the chat is closed, calls must come before its close() or aclose(): make another one")

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()


class ChatFullError(ChatError, OutOfMemoryError):
    """Raised when Redis has no memory left for a message or a new client: this attempt stored nothing."""


class ChecksFailedError(ChatError, RuntimeError):
    """Raised when some of many channels could not be checked: a server of a cluster was away, say.

    Attributes:
        checks: checks of the other channels, by name; their messages count as read.
        errors: errors of the channels that could not be checked, by name.
    """

    def __init__(self, checks: Mapping[str, Check], errors: Mapping[str, Exception]) -> None:
        channel, error = next(iter(errors.items()))
        count = len(checks) + len(errors)
        super().__init__(f"{len(errors)} of {count} channels could not be checked; {channel!r} first: {error}")
        self.checks, self.errors = checks, errors

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), (self.checks, self.errors)


class InvalidArgumentError(ChatError, ValueError):
    """Raised for an argument that is not allowed, before Redis is asked."""


class InvalidCursorError(InvalidArgumentError):
    """Raised for an ``after`` that is not the ``cursor`` of any check."""


class MessageTooLongError(InvalidArgumentError):
    """Raised for a body that encodes to more than ``CHAT_MAX_MESSAGE_BYTES``."""


class KeyReusedError(ChatError, ValueError):
    """Raised when a ``key`` is used again with another body: nothing was stored."""


class SettingsError(ChatError, ValueError):
    """Raised for a setting that is not allowed."""


class ShardsMismatchError(ChatError, RuntimeError):
    """Raised when the data in Redis is stored in another number of shards than ``CHAT_SHARDS``."""
