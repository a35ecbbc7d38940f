"""Every setting of the product: its environment name, its default, what is allowed. Nothing else reads them."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dotenv import dotenv_values, find_dotenv
from dotenv.parser import parse_stream

from chat._cron import parse_cron
from chat._errors import SettingsError
from chat.store.arguments import LONGEST, printable, short
from chat.store.urls import CLUSTER, FORMS, SENTINEL, SENTINEL_FORM, SERVER_FORM, parse_place, password_hint, redact_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dotenv.parser import Binding

__all__ = ["QUEUE", "Settings", "unknown_names"]

QUEUE = "pollchat"  # of the tasks: another Celery app in the same database never takes them

CRON_FIELDS = 5
SHARDS_LIMIT = 16384  # a cluster has that many slots: more shards than slots spread nothing further
PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,50}", re.ASCII)  # no braces: the hash tag is the shard's


FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)
OURS = "CHAT_"  # what the names of settings begin with; all but REDIS_URL
# What Kubernetes adds to the environment for a Service that is called "chat", or "chat-" and more.
OF_A_SERVICE = re.compile(r"CHAT_([A-Z0-9_]+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP)(_\w+)?)?)", re.ASCII)


def _whole(low: int, high: int = 2**31) -> Any:
    def parse(value: Any) -> int:
        number = int(value) if isinstance(value, str) else value
        if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
            raise ValueError
        return number

    return parse, f"a whole number from {low} to {high}"


def _seconds(*, zero: bool = False) -> Any:
    def parse(value: Any) -> float:
        number = float(value) if isinstance(value, str) else value
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError  # noqa: TRY004  one refusal for all of it
        if not (0 if zero else 0.001) <= number <= LONGEST:
            raise ValueError
        return number

    return parse, "a number of seconds, 0 for off" if zero else "a number of seconds above 0"


def _schedule(value: Any) -> float | str:
    if isinstance(value, str) and len(value.split()) == CRON_FIELDS:
        parse_cron(value)
        return " ".join(value.split())
    parse: Callable[[Any], float] = _seconds()[0]
    return parse(value)


def _redis_url(value: Any) -> str:
    parse_place(value)
    return str(value)


def _celery_url(value: Any) -> str:
    place = parse_place(value)
    if place.form == CLUSTER or (place.form == SENTINEL and place.options.get("ssl")):
        raise ValueError  # Celery has no transport for the one; for the other its settings are no URL
    return str(value)


def _prefix(value: Any) -> str:
    if not PREFIX.fullmatch(value):
        raise ValueError
    return str(value)


def _folder(value: Any) -> str:
    if not Path(value).is_absolute():
        raise ValueError
    return str(value)


def _function(value: Any) -> str:
    if value and not FUNCTION.fullmatch(value):
        raise ValueError
    return str(value)


def _archive(value: Any) -> str:
    return str(value) if Path(value).is_absolute() else _function(value)


EVERY = (
    "a number of seconds above 0, or a cron expression of five fields that comes true at least every eight years:"
    " day of month and day of week must both match"
)
SCHEDULE = (_schedule, EVERY)
URL = (_redis_url, FORMS)
CELERY_URL = (_celery_url, f"{SERVER_FORM} or {SENTINEL_FORM}; Celery has no transport for a cluster")


def _setting(name: str, default: Any, rule: tuple[Callable[[Any], Any], str]) -> Any:
    return field(default=default, metadata={"name": name, "parse": rule[0], "allowed": rule[1]})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one process. ``Settings()`` are the defaults and read no environment.

    Attributes:
        redis_url: chat data, broker and results.
        broker_url: Celery's broker, by default `redis_url`; empty when that is a cluster: chatting needs none.
        result_url: Celery's results, by default `redis_url`, or `broker_url` when that is a cluster.
        prefix: first part of every key.
        shards: how many shards the channels are spread over; fixed with the first message.
        max_message_bytes: longest body, as JSON.
        dedupe_seconds: how long a repeated send is recognised, at least.
        backlog: messages a channel keeps when the backlog is cleaned.
        hard_backlog: messages a channel never exceeds, 0 for no cap; by default 10 x `backlog`.
        channel_timeout: seconds without a message until a channel is idle.
        client_timeout: seconds without a check until a client is expired.
        message_timeout: seconds until a message is too old, 0 for never.
        clean_channels_every: seconds between runs, or a cron expression in UTC.
        clean_backlog_every: likewise.
        clean_clients_every: likewise.
        clean_parts: tasks that each scheduled run is split into.
        archive: where removed messages are kept: an absolute path of a folder, or ``module:function``, called with
            a channel and its messages; empty for nowhere.
        on_expire: ``module:function`` that is called with a channel and the clients that expired there, or None
            when the channel itself was removed; empty for none.
        heartbeat_dir: folder where worker and beat show that they live; by default one of the user's own among
            the temporary files.

    Raises:
        SettingsError: a value that is not allowed.
    """

    redis_url: str = _setting("REDIS_URL", "redis://127.0.0.1:6379/0", URL)
    broker_url: str = _setting("CHAT_BROKER_URL", None, CELERY_URL)
    result_url: str = _setting("CHAT_RESULT_URL", None, CELERY_URL)
    prefix: str = _setting("CHAT_PREFIX", "chat", (_prefix, "1 to 50 of letters, digits and _ . : -"))
    shards: int = _setting("CHAT_SHARDS", 16, _whole(1, SHARDS_LIMIT))
    max_message_bytes: int = _setting("CHAT_MAX_MESSAGE_BYTES", 65536, _whole(1, 64 * 1024 * 1024))
    dedupe_seconds: int = _setting("CHAT_DEDUPE_SECONDS", 60, _whole(1, 86400))
    backlog: int = _setting("CHAT_BACKLOG", 100, _whole(1))
    hard_backlog: int = _setting("CHAT_HARD_BACKLOG", None, _whole(0))
    channel_timeout: float = _setting("CHAT_CHANNEL_TIMEOUT", 900, _seconds())
    client_timeout: float = _setting("CHAT_CLIENT_TIMEOUT", 300, _seconds())
    message_timeout: float = _setting("CHAT_MESSAGE_TIMEOUT", 0, _seconds(zero=True))
    clean_channels_every: float | str = _setting("CHAT_CLEAN_CHANNELS_EVERY", 60, SCHEDULE)
    clean_backlog_every: float | str = _setting("CHAT_CLEAN_BACKLOG_EVERY", 30, SCHEDULE)
    clean_clients_every: float | str = _setting("CHAT_CLEAN_CLIENTS_EVERY", 60, SCHEDULE)
    clean_parts: int = _setting("CHAT_CLEAN_PARTS", 1, _whole(1, SHARDS_LIMIT))
    archive: str = _setting("CHAT_ARCHIVE", "", (_archive, "an absolute path of a folder, or module:function"))
    on_expire: str = _setting("CHAT_ON_EXPIRE", "", (_function, "module:function"))
    heartbeat_dir: str = _setting("CHAT_HEARTBEAT_DIR", None, (_folder, "an absolute path"))

    def __post_init__(self) -> None:
        """Hold every value against its rule, and fill in what follows from others."""
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None and item.default is None:
                object.__setattr__(self, item.name, self._derived(item.name))
                continue
            try:
                object.__setattr__(self, item.name, item.metadata["parse"](value))
            except (TypeError, ValueError, AttributeError):
                shown = short(printable(redact_url(value)) if isinstance(value, str) else redact_url(printable(value)))
                hint = password_hint(value) if item.name.endswith("_url") else ""
                message = f"{item.metadata['name']} is {shown}, must be {item.metadata['allowed']}{hint}"
                raise SettingsError(message) from None
        if 0 < self.hard_backlog < self.backlog:
            message = f"CHAT_HARD_BACKLOG is {self.hard_backlog}, must be 0 or at least CHAT_BACKLOG, {self.backlog}"
            raise SettingsError(message)
        if self.clean_parts > self.shards:
            message = f"CHAT_CLEAN_PARTS is {self.clean_parts}, must be at most CHAT_SHARDS, {self.shards}"
            raise SettingsError(message)

    def __repr__(self) -> str:
        """Return the settings without passwords: ``celery report`` and Flower show them."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        shown = {name: redact_url(value) if name.endswith("_url") else value for name, value in values.items()}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def _derived(self, name: str) -> Any:
        """Return the default of a setting that follows from settings above it."""
        if name == "hard_backlog":
            return 10 * self.backlog
        if name == "heartbeat_dir":
            return str(Path(tempfile.gettempdir(), f"pollchat-{os.getuid()}"))
        if parse_place(self.redis_url).form != CLUSTER:
            return self.redis_url
        return "" if name == "broker_url" else self.broker_url

    @property
    def celery_prefix(self) -> str:
        """First part of the names of Celery's keys."""
        return f"{self.prefix}:celery:"

    def interval(self, sweep: str) -> float | None:
        """Return the seconds between two runs of a sweep, None for a cron expression."""
        every: float | str = getattr(self, f"{sweep}_every")
        return None if isinstance(every, str) else every

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Return the settings of the environment, and of ``.env`` in this folder or the nearest above it.

        Args:
            environ: taken instead of both; a test's, say. An empty value counts as not set.

        Raises:
            SettingsError: a value that is not allowed; one line with its name.
        """
        environ = _environment() if environ is None else environ
        given: dict[str, Any] = {item.name: environ.get(item.metadata["name"], "").strip() for item in fields(cls)}
        return cls(**{name: value for name, value in given.items() if value})


def _environment() -> dict[str, str]:
    """Return the environment, and from ``.env`` in this folder or the nearest above it what that does not set."""
    good = StringIO("".join(line.original.string for line in _lines_of_file()[1] if not line.error))
    from_file = {name: value or "" for name, value in dotenv_values(stream=good).items()}
    return from_file | {k: v for k, v in os.environ.items() if v}


def _lines_of_file() -> tuple[str, list[Binding]]:
    """Return the path of ``.env`` in this folder or the nearest above it, empty for none, and its statements.

    Raises:
        SettingsError: it cannot be read.
    """
    path = find_dotenv(usecwd=True)
    try:
        text = Path(path).read_text("utf-8") if path else ""
    except UnicodeDecodeError:
        message = f"{path} is no UTF-8, must be text in UTF-8: save it in that encoding"
        raise SettingsError(message) from None
    except OSError as error:
        message = f"{path} cannot be read, must be a file that this user may read: {error.strerror}"
        raise SettingsError(message) from None
    return path, list(parse_stream(StringIO(text)))


def unknown_names(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return a line for each name that begins like a setting and is none, and for each line of ``.env`` that has none.

    Args:
        environ: taken instead of the environment and ``.env``.
    """
    known = [item.metadata["name"] for item in fields(Settings)]
    lines = []
    if environ is None:
        environ = _environment()
        path, statements = _lines_of_file()
        unread = [line.original.line for line in statements if line.error]
        lines += [f"{path}, line {number} is no NAME=value and does nothing" for number in unread]
    for name in sorted(name for name, value in environ.items() if value.strip()):
        if name.startswith(OURS) and name not in known and not OF_A_SERVICE.fullmatch(name):
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "see .env.example for the names"
            lines.append(f"{name} is no setting and does nothing: {hint}")
    return lines
