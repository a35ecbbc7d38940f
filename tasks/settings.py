"""Settings of the daemon: those of the chat, and its schedules, broker, results, archive, hook and heartbeat."""

from __future__ import annotations

import os
import re
import tempfile
from calendar import monthrange
from dataclasses import dataclass, fields
from datetime import date
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from chat import Settings as ChatSettings
from chat import SettingsError
from chat.settings import option, seconds, whole
from chat.store.urls import CLUSTER, SENTINEL, SENTINEL_FORM, SERVER_FORM, parse_place

__all__ = ["QUEUE", "Settings", "daemon_settings"]

QUEUE = "pollchat"  # of the tasks: another Celery app in the same database never takes them

FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)

NUMBER = r"\d+"
MONTH = rf"(?:{NUMBER}|(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*)"
WEEKDAY = rf"(?:{NUMBER}|(?:sun|mon|tue|wed|thu|fri|sat)[a-z]*)"
CRON = tuple(
    re.compile(rf"(?:{one})(?:,(?:{one}))*", re.ASCII | re.IGNORECASE)
    for one in (rf"{word}|(?:\*|{word}-{word})(?:/\d+)?" for word in (NUMBER, NUMBER, NUMBER, MONTH, WEEKDAY))
)
GAP = 8  # years between two runs, at most: as many as between two leap days about the year 2100
CYCLE = range(2001, 2029)  # years until all dates have their weekday again


def _schedule(value: Any) -> Any:
    if not isinstance(value, str) or len(value.split()) != len(CRON):
        return seconds()[0](value)
    expression = " ".join(value.split())
    _confirm_cron(expression)
    return expression


@cache
def _confirm_cron(expression: str) -> None:
    """Raise ValueError for an expression that is none, or that comes true too rarely to be a schedule.

    Celery also reads the beginning of ``1-5-7`` and takes ``mon`` for January, hence the patterns.
    """
    from celery.schedules import crontab  # noqa: PLC0415  only cron expressions need Celery here

    if not all(pattern.fullmatch(word) for pattern, word in zip(CRON, expression.split(), strict=True)):
        raise ValueError
    cron = crontab.from_string(expression)
    years = [year for year in CYCLE if _comes_true(year, cron)]
    if not years or any(later - year > GAP for year, later in pairwise([*years, years[0] + len(CYCLE)])):
        raise ValueError


def _comes_true(year: int, cron: Any) -> bool:
    return any(
        day <= monthrange(year, month)[1] and date(year, month, day).isoweekday() % 7 in cron.day_of_week
        for month in cron.month_of_year
        for day in cron.day_of_month
    )


def _celery_url(value: Any) -> str:
    if not _is_for_celery(value):
        raise ValueError
    return str(value)


def _is_for_celery(url: str) -> bool:
    """Whether Celery can use a server: it has no transport for a cluster, and talks to sentinels without TLS."""
    place = parse_place(url)
    return place.form != CLUSTER and not (place.form == SENTINEL and place.options.get("ssl"))


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
CELERY_URL = (_celery_url, f"{SERVER_FORM} or {SENTINEL_FORM}; Celery can use no cluster, nor sentinels with TLS")


def _own_server(settings: Settings) -> str:
    """Return the chat's URL, empty where Celery cannot use it."""
    return settings.redis_url if _is_for_celery(settings.redis_url) else ""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings(ChatSettings):
    """Settings of the daemon: those of `chat.Settings`, and these.

    Attributes:
        broker_url: Celery's broker, by default `redis_url`; empty when that is a cluster, or sentinels with TLS.
        result_url: Celery's results, by default `redis_url`, or `broker_url` where Celery cannot use that.
        clean_channels_every: when idle channels are removed: seconds between two runs, or a cron expression in UTC.
        clean_backlog_every: when old messages are removed: seconds between two runs, or a cron expression in UTC.
        clean_clients_every: when expired clients are removed: seconds between two runs, or a cron expression in UTC.
        clean_parts: tasks that each scheduled run is split into.
        archive: where removed messages are kept: the absolute path of a folder, or ``module:function``, which is
            called with a channel and its messages; empty for nowhere.
        on_expire: ``module:function`` that is called with a channel and the clients that expired there, or None
            when the channel itself was removed; empty for none.
        heartbeat_dir: folder where worker and beat show that they are alive; by default one per user among the
            temporary files.

    Raises:
        SettingsError: a value is not allowed.
    """

    broker_url: str = option("CHAT_BROKER_URL", _own_server, CELERY_URL)
    result_url: str = option(
        "CHAT_RESULT_URL", lambda settings: _own_server(settings) or settings.broker_url, CELERY_URL
    )
    clean_channels_every: float | str = option("CHAT_CLEAN_CHANNELS_EVERY", 60, SCHEDULE)
    clean_backlog_every: float | str = option("CHAT_CLEAN_BACKLOG_EVERY", 30, SCHEDULE)
    clean_clients_every: float | str = option("CHAT_CLEAN_CLIENTS_EVERY", 60, SCHEDULE)
    clean_parts: int = option("CHAT_CLEAN_PARTS", 1, whole(1))
    archive: str = option("CHAT_ARCHIVE", "", (_archive, "an absolute path of a folder, or module:function"))
    on_expire: str = option("CHAT_ON_EXPIRE", "", (_function, "module:function"))
    heartbeat_dir: str = option(
        "CHAT_HEARTBEAT_DIR",
        lambda _: str(Path(tempfile.gettempdir(), f"pollchat-{os.getuid()}")),
        (_folder, "an absolute path"),
    )

    def __post_init__(self) -> None:
        """Validate what the chat's settings and the daemon's say together too."""
        ChatSettings.__post_init__(self)  # super() without arguments does not know a class with slots
        if self.clean_parts > self.shards:
            message = f"CHAT_CLEAN_PARTS is {self.clean_parts}, must be at most CHAT_SHARDS, {self.shards}"
            raise SettingsError(message)

    @property
    def celery_prefix(self) -> str:
        """First part of the names of Celery's keys."""
        return f"{self.prefix}:celery:"

    def interval(self, sweep: str) -> float | None:
        """Return the seconds between two runs of a sweep, None for a cron expression."""
        every: float | str = getattr(self, f"{sweep}_every")
        return None if isinstance(every, str) else every


@cache
def daemon_settings(settings: ChatSettings | None) -> Settings:
    """Return settings of the daemon: those given if they are, else the given values and the daemon's defaults.

    Without settings all are defaults. A default has no archive and no hook.
    """
    if isinstance(settings, Settings):
        return settings
    return Settings(**{item.name: getattr(settings, item.name) for item in fields(ChatSettings)} if settings else {})
