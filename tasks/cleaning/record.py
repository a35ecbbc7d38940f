"""The record of the runs, kept in Redis for stats, metrics and beat."""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisClusterException, RedisError, ResponseError

from chat.store.keys import decode_name, encode_text
from chat.store.nodes import Command, raise_first, run_all
from tasks.cleaning.scripts import NOTE_RUN, is_of_data
from tasks.functions import described

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from chat.store.keys import Keys
    from chat.store.nodes import Client
    from tasks.cleaning.report import Report

__all__ = ["LastRun", "last_run", "note_scheduled", "parse_ms", "recorded", "scheduled_ages"]

# A time further ahead was noted by a clock that was wrong. Less than the hour of chat/store/lua/shared/time.lua: that
# changes what is stored, so it must be sure; to take a time for none costs one early run here, or an age in stats.
MAX_AHEAD_MS = 60_000
LONGEST_TIME = 15  # digits
LONGEST_COUNT = 19  # digits, of a count that Redis can hold


def recorded(work: Callable[[], Report], client: Client, keys: Keys, sweep: str, removed: Mapping[str, int]) -> Report:
    """Do the work of a run; record its start, then its report, or its error and the counts `removed` until then."""
    run = secrets.token_hex(8)
    troubles: list[str] = []

    def note(moment: str, text: str = "", **totals: int) -> None:
        pairs = [part for item in totals.items() for part in item]
        try:
            NOTE_RUN(client, (keys.runs,), (sweep, moment, encode_text(text), run, *pairs))
        except ResponseError as error:
            if not is_of_data(error):
                raise
            troubles.append(described(error))  # a key of another type is no reason to clean nothing

    try:
        note("started")
        report = work()
        if not report.skipped:  # else another run does the work, and will record its report
            totals = {"channels": report.channels, "messages": report.messages, "clients": report.clients}
            note("ended", json.dumps(asdict(report)), runs=1, **totals)
    except BaseException as error:
        with suppress(
            RedisError, RedisClusterException
        ):  # Redis itself may be the trouble; the caller gets the error anyway
            note("failed", described(error), runs=1, failures=1, **removed)
        raise
    if troubles and not report.error:
        told = f"{keys.runs.decode()}: {troubles[0]}: the record of the runs is not kept, delete that key"
        return replace(report, error=told)
    return report


def note_scheduled(client: Client, keys: Keys, entry: str) -> None:
    """Note that beat has just scheduled a run of an entry of its schedule; also while Redis is full."""
    NOTE_RUN(client, (keys.runs,), (entry, "scheduled", "", ""))


def scheduled_ages(client: Client, keys: Keys, entries: Sequence[str]) -> dict[str, float]:
    """Return for entries of the beat schedule how many seconds ago a run was last scheduled, by the server's clock.

    An entry is absent if it was never scheduled, or if its time is damaged or from a clock far ahead: every beat would
    wait until then. A time a little ahead counts as now.
    """
    fields = [f"{entry}:scheduled" for entry in entries]
    commands = [("HMGET", keys.runs, *fields), ("TIME",)]
    noted, (seconds, microseconds) = raise_first(run_all(client, [Command(keys.runs, words) for words in commands]))
    now_ms = int(seconds) * 1000 + int(microseconds) // 1000
    stored = {entry: parse_ms(value, now_ms) for entry, value in zip(entries, noted, strict=True)}
    return {entry: max(0, now_ms - then_ms) / 1000 for entry, then_ms in stored.items() if then_ms is not None}


def parse_ms(noted: bytes | None, now_ms: int | None = None) -> int | None:
    """Return a time in ms as it was noted; None where there is none, where it is damaged, or far ahead of `now_ms`."""
    words = (noted or b"").split(b" ", 1)
    if not words[0].isdigit() or len(words[0]) > LONGEST_TIME:
        return None
    then_ms = int(words[0])
    return None if now_ms is not None and then_ms > now_ms + MAX_AHEAD_MS else then_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """The recorded state of a sweep. Times are ms since 1970 by the server's clock, None where there was none.

    Attributes:
        started_ms: when the last run started.
        ended_ms: when the last run that reached its end did so, complete or not.
        report: the report of that run, as a mapping; empty where there was none.
        failed_ms: when the last run that failed did so.
        error: the error of that run.
        runs: runs that ended or failed, ever.
        failures: runs that failed, ever.
        channels: channels removed, ever.
        messages: messages removed, ever.
        clients: clients forgotten, ever.
    """

    started_ms: int | None
    ended_ms: int | None
    report: Mapping[str, Any]
    failed_ms: int | None
    error: str
    runs: int
    failures: int
    channels: int
    messages: int
    clients: int


def _report(text: str) -> dict[str, Any]:
    try:
        report = json.loads(text)
    except (ValueError, RecursionError):  # there was none, or it is damaged
        return {}
    return report if isinstance(report, dict) else {}


def last_run(record: Mapping[bytes, bytes], sweep: str) -> LastRun:
    """Return what the hash ``chat:runs`` holds of a sweep; what is damaged counts as absent."""
    noted: dict[str, tuple[int | None, str]] = {}
    for moment in ("started", "ended", "failed"):
        stored = record.get(f"{sweep}:{moment}".encode(), b"")
        noted[moment] = (parse_ms(stored), decode_name(stored.partition(b" ")[2]))
    totals = ("runs", "failures", "channels", "messages", "clients")
    return LastRun(
        started_ms=noted["started"][0],
        ended_ms=noted["ended"][0],
        report=_report(noted["ended"][1]),
        failed_ms=noted["failed"][0],
        error=noted["failed"][1],
        **{total: _count(record.get(f"{sweep}:{total}".encode(), b"")) for total in totals},
    )


def _count(stored: bytes) -> int:
    return int(stored) if stored.isdigit() and len(stored) <= LONGEST_COUNT else 0
