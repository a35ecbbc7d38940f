"""Values that ``celeryconfig`` computes from the settings: the beat schedule, and URLs in Celery's form."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from celery.schedules import crontab
from redis.connection import parse_url

from chat import InvalidArgumentError, SettingsError
from chat.store.urls import SENTINEL, parse_place
from tasks.cleaning import SWEEPS
from tasks.settings import Settings

__all__ = ["beat_schedule", "celery_url", "longest_interval", "tls_options", "transport_options"]

SHORTEST_CRON = 60  # seconds between two runs of a cron expression, at least
LOOK_AHEAD = 1500  # runs of a cron expression: more than a day with a run each minute
LOOK_AHEAD_YEARS = 28  # after that every date has its weekday again
FRESH = 0.9  # part of its interval that a run may wait for a worker


def beat_schedule(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the entries of the three sweeps: ``clean_parts`` entries each, every one with its own shards.

    Raises:
        InvalidArgumentError: these are the settings of a chat, which have no schedule.
    """
    if not isinstance(settings, Settings):
        message = "settings are a chat.Settings, must be a tasks.settings.Settings, which has the schedules"
        raise InvalidArgumentError(message)
    return {
        f"{sweep} {part + 1}/{settings.clean_parts}": _entry(settings, sweep, part)
        for sweep in SWEEPS
        for part in range(settings.clean_parts)
    }


def _entry(settings: Settings, sweep: str, part: int) -> dict[str, Any]:
    every: float | str = getattr(settings, f"{sweep}_every")
    interval = SHORTEST_CRON if isinstance(every, str) else every
    entry: dict[str, Any] = {
        "task": f"tasks.{sweep}",
        "schedule": crontab.from_string(every) if isinstance(every, str) else every,
        "options": {
            # Runs do not pile up while no worker runs: one that waits too long is discarded.
            "expires": FRESH * interval,
            # With a result to store, beat would wait for the result backend while Redis is away. The report
            # still reaches Flower and the log, through the worker's task-succeeded event.
            "ignore_result": True,
        },
    }
    if settings.clean_parts > 1:
        entry["kwargs"] = {"shards": list(range(part, settings.shards, settings.clean_parts))}
    return entry


@cache
def longest_interval(settings: Settings, sweep: str) -> float:
    """Return the longest time in seconds between two of the next runs of a sweep."""
    every: float | str = getattr(settings, f"{sweep}_every")
    if not isinstance(every, str):
        return every
    schedule = crontab.from_string(every)
    schedule.nowfun = lambda: datetime.now(UTC)
    longest, moment = 0.0, schedule.nowfun()
    end = moment.year + LOOK_AHEAD_YEARS
    for run in range(LOOK_AHEAD):
        start, delta, _ = schedule.remaining_delta(moment)
        following = start + delta
        longest = max(longest, (following - moment).total_seconds() if run else 0.0)
        moment = following
        if moment.year > end:
            break
    return longest


def celery_url(url: str) -> str:
    """Return a URL in Celery's form, which differs for sentinels and unix sockets, and has no parameters of TLS.

    Raises:
        SettingsError: the URL is empty.
    """
    if not url:
        message = (
            "CHAT_BROKER_URL is not set, must be a Redis for Celery's queue, redis://host:port/db say: "
            "REDIS_URL is a cluster or sentinels with TLS, and Celery can use neither"
        )
        raise SettingsError(message)
    place = parse_place(url)
    if place.form == SENTINEL:
        name, password = (quote(place.options.get(part, ""), safe="") for part in ("username", "password"))
        login = f"{name}:{password}@" if name or password else ""
        return ";".join(f"sentinel://{login}{_netloc(*host)}/{place.options.get('db', 0)}" for host in place.hosts)
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url.partition("?")[0]
    login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    database = parse_qs(parts.query).get("db", ["0"])[0]
    return f"redis+socket://{login}{parts.path}?virtual_host={database}"


def tls_options(url: str) -> dict[str, Any]:
    """Return redis-py's options for TLS from a URL of a server, none without TLS.

    In a URL, Celery's results take only some of them and no ``ssl_check_hostname=false``, Flower's page of the broker
    takes none and its page of the results shows ``ssl_password``. In a dict all are taken, and passwords masked.
    """
    if urlsplit(url).scheme != "rediss":
        return {}
    options = {name: value for name, value in parse_url(url).items() if name.startswith("ssl_")}
    return {"ssl_cert_reqs": "required"} | options  # Celery wants it said


def _netloc(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def transport_options(url: str) -> dict[str, Any]:
    """Return the options that Celery needs for sentinels in addition to their URL."""
    place = parse_place(url)
    if place.form != SENTINEL:
        return {}
    return {"master_name": place.service, "sentinel_kwargs": place.sentinel_options}
