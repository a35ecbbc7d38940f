"""Settings of the chat: names, defaults and limits. ``tasks.settings`` adds what the daemon needs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Self

from chat._environment import environment, lines_of_file
from chat._errors import SettingsError
from chat.store.arguments import LONGEST, safe_repr, short
from chat.store.urls import FORMS, parse_place, redact_url, url_hint

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Settings", "option", "seconds", "unknown_names", "whole"]

SHARDS_LIMIT = 16384  # a cluster has that many slots: more shards than slots spread nothing further
HARD_BACKLOG = 1000  # messages; below it a mistyped backlog would make every send drop messages
PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,50}", re.ASCII)  # no braces: the hash tag is the shard's

START = "CHAT_"  # of every name but REDIS_URL
# Kubernetes adds such names for a Service that is called "chat", or "chat-" and more.
ADDED = re.compile(r"CHAT_([A-Z0-9_]+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP)(_\w+)?)?)", re.ASCII)
# One .env serves both: the names that tasks.settings adds, which are no misspelt ones. A test compares them.
DAEMON_NAMES = (
    "CHAT_ARCHIVE", "CHAT_BROKER_URL", "CHAT_CLEAN_BACKLOG_EVERY", "CHAT_CLEAN_CHANNELS_EVERY",
    "CHAT_CLEAN_CLIENTS_EVERY", "CHAT_CLEAN_PARTS", "CHAT_HEARTBEAT_DIR", "CHAT_ON_EXPIRE", "CHAT_RESULT_URL",
)  # fmt: skip

Rule = tuple[Callable[[Any], Any], str]  # returns the value or raises; what is allowed, in words


def option(name: str, default: Any, rule: Rule) -> Any:
    """Return the field of a setting.

    Args:
        name: name in the environment.
        default: a value, or a function that computes it from the settings of the fields above this one.
        rule: a function that returns the value, converted from a str where necessary, or raises ValueError; and the
            words for what is allowed.
    """
    derive = default if callable(default) else None
    metadata = {"name": name, "derive": derive, "parse": rule[0], "allowed": rule[1]}
    return field(default=None if derive else default, metadata=metadata)


def whole(low: int, high: int = 2**31) -> Rule:
    """Return the rule for a whole number."""

    def parse(value: Any) -> int:
        number = int(value) if isinstance(value, str) else value
        if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
            raise ValueError
        return number

    return parse, f"a whole number from {low} to {high}"


def seconds(*, zero: bool = False) -> Rule:
    """Return the rule for a time in seconds."""

    def parse(value: Any) -> float:
        number = float(value) if isinstance(value, str) else value
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError  # noqa: TRY004  one refusal for all of it
        if not (0 if zero else 0.001) <= number <= LONGEST:
            raise ValueError
        return number

    return parse, "a number of seconds, 0 for off" if zero else "a number of seconds above 0"


def _redis_url(value: Any) -> str:
    parse_place(value)
    return str(value)


def _prefix(value: Any) -> str:
    if not PREFIX.fullmatch(value):
        raise ValueError
    return str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings that sending, checking and cleaning share: connection, layout, limits, retention.

    ``Settings()`` has the defaults and reads no environment.

    Attributes:
        redis_url: where the chat is stored.
        prefix: first part of every key.
        shards: how many shards the channels are spread over; fixed by the first call.
        max_message_bytes: longest body, as JSON.
        dedupe_seconds: seconds for which a repeated send is recognised, at least.
        backlog: messages that a channel keeps when the backlog is cleaned.
        hard_backlog: messages that a channel never exceeds, 0 for no cap; by default the larger of 1,000 and
            10 x `backlog`.
        channel_timeout: seconds without a message after which a channel is idle.
        client_timeout: seconds without a check after which a client is expired.
        message_timeout: seconds after which a message is too old, 0 for never.

    Raises:
        SettingsError: a value is not allowed.
    """

    redis_url: str = option("REDIS_URL", "redis://127.0.0.1:6379/0", (_redis_url, FORMS))
    prefix: str = option("CHAT_PREFIX", "chat", (_prefix, "1 to 50 of letters, digits and _ . : -"))
    shards: int = option("CHAT_SHARDS", 16, whole(1, SHARDS_LIMIT))
    max_message_bytes: int = option("CHAT_MAX_MESSAGE_BYTES", 65536, whole(1, 64 * 1024 * 1024))
    dedupe_seconds: int = option("CHAT_DEDUPE_SECONDS", 60, whole(1, 86400))
    backlog: int = option("CHAT_BACKLOG", 100, whole(1))
    hard_backlog: int = option("CHAT_HARD_BACKLOG", lambda settings: max(HARD_BACKLOG, 10 * settings.backlog), whole(0))
    channel_timeout: float = option("CHAT_CHANNEL_TIMEOUT", 900, seconds())
    client_timeout: float = option("CHAT_CLIENT_TIMEOUT", 300, seconds())
    message_timeout: float = option("CHAT_MESSAGE_TIMEOUT", 0, seconds(zero=True))

    def __post_init__(self) -> None:
        """Validate every value, and compute the defaults that depend on other settings."""
        for item in fields(self):
            value, derive = getattr(self, item.name), item.metadata["derive"]
            value = derive(self) if derive and value is None else _validated(item, value)
            object.__setattr__(self, item.name, value)
        if 0 < self.hard_backlog < self.backlog:
            message = f"CHAT_HARD_BACKLOG is {self.hard_backlog}, must be 0 or at least CHAT_BACKLOG, {self.backlog}"
            raise SettingsError(message)

    def __repr__(self) -> str:
        """Return the settings without passwords: ``celery report`` and Flower show them."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        shown = {name: redact_url(value) if name.endswith("_url") else value for name, value in values.items()}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Return the settings of the environment, and of ``.env`` in this folder or the nearest above it.

        Args:
            environ: read instead of both. An empty value counts as not set.

        Raises:
            SettingsError: a value is not allowed; the message is one line with its name.
        """
        environ = environment() if environ is None else environ
        given: dict[str, Any] = {item.name: environ.get(item.metadata["name"], "").strip() for item in fields(cls)}
        return cls(**{name: value for name, value in given.items() if value})


def _validated(item: Field[Any], value: Any) -> Any:
    try:
        return item.metadata["parse"](value)
    except (TypeError, ValueError, AttributeError):
        shown = short(safe_repr(redact_url(value)) if isinstance(value, str) else redact_url(safe_repr(value)))
        hint = url_hint(value) if item.name.endswith("_url") else ""
        message = f"{item.metadata['name']} is {shown}, must be {item.metadata['allowed']}{hint}"
        raise SettingsError(message) from None


def unknown_names(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return a warning for each misspelt setting, and for each line of ``.env`` that sets nothing.

    Args:
        environ: read instead of the environment and ``.env``.
    """
    known = [*(item.metadata["name"] for item in fields(Settings)), *DAEMON_NAMES]
    lines = []
    if environ is None:
        environ = environment()
        path, statements = lines_of_file()
        unread = [line.original.line for line in statements if line.error]
        lines += [f"{path}, line {number} is no NAME=value and does nothing" for number in unread]
    for name in sorted(name for name, value in environ.items() if value.strip()):
        if name.startswith(START) and name not in known and not ADDED.fullmatch(name):
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "see .env.example for the names"
            lines.append(f"{name} is no setting and does nothing: {hint}")
    return lines
