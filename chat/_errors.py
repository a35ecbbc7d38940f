"""Every error the chat raises of its own.

::

    ChatError
    ├── ChatFullError          redis.exceptions.OutOfMemoryError
    ├── InvalidArgumentError   ValueError
    │   ├── InvalidCursorError
    │   └── MessageTooLongError
    ├── KeyReusedError         ValueError
    ├── SettingsError          ValueError
    └── ShardsMismatchError    RuntimeError

Redis unreachable is not among them: redis-py's own ``ConnectionError`` and ``TimeoutError`` pass through.
"""

from redis.exceptions import OutOfMemoryError

__all__ = [
    "ChatError",
    "ChatFullError",
    "InvalidArgumentError",
    "InvalidCursorError",
    "KeyReusedError",
    "MessageTooLongError",
    "SettingsError",
    "ShardsMismatchError",
]


class ChatError(Exception):
    """Base of every error below."""


class ChatFullError(ChatError, OutOfMemoryError):
    """Raised when Redis has no memory left for a message: nothing of it was stored."""


class InvalidArgumentError(ChatError, ValueError):
    """Raised for an argument that cannot be meant, before Redis is touched."""


class InvalidCursorError(InvalidArgumentError):
    """Raised for an ``after`` that is not the ``cursor`` of any check."""


class MessageTooLongError(InvalidArgumentError):
    """Raised for a body that encodes to more than ``CHAT_MAX_MESSAGE_BYTES``."""


class KeyReusedError(ChatError, ValueError):
    """Raised when a ``key`` comes again with another body: nothing was stored."""


class SettingsError(ChatError, ValueError):
    """Raised for a setting that is not allowed."""


class ShardsMismatchError(ChatError, RuntimeError):
    """Raised when the data in Redis lies in another number of shards than ``CHAT_SHARDS``."""
