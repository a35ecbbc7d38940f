"""A poll-based chat kept in Redis: send messages to channels, ask what is new since the last check."""

from chat._async_chat import AsyncChat
from chat._chat import Chat
from chat._errors import (
    ChatClosedError,
    ChatError,
    ChatFullError,
    ChecksFailedError,
    InvalidArgumentError,
    InvalidCursorError,
    KeyReusedError,
    MessageTooLongError,
    SettingsError,
    ShardsMismatchError,
)
from chat._values import Check, Message, Presence
from chat.settings import Settings

__all__ = [
    "AsyncChat",
    "Chat",
    "ChatClosedError",
    "ChatError",
    "ChatFullError",
    "Check",
    "ChecksFailedError",
    "InvalidArgumentError",
    "InvalidCursorError",
    "KeyReusedError",
    "Message",
    "MessageTooLongError",
    "Presence",
    "Settings",
    "SettingsError",
    "ShardsMismatchError",
]

for _name in __all__:  # errors, repr() and help() name the module to import from
    globals()[_name].__module__ = __name__
