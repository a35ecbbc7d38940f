"""The record of the runs: what each sweep last did, for those who ask later. See ``chat:runs`` in chat/_keys.py."""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from chat._keys import decode_text, encode_text
from chat._nodes import Command, all_of
from chat._scripts import NOTE_RUN
from chat._tally import described

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from chat._keys import Keys
    from chat._nodes import Client
    from chat._report import Report

__all__ = ["LastRun", "last_run", "note_scheduled", "recorded", "scheduled_ages"]


def recorded(
    work: Callable[[], Report], client: Client, keys: Keys, sweep: str, removed_so_far: Callable[[], dict[str, int]]
) -> Report:
    """Do the work of a run, and note its start, then its report, or its error and what it had removed until then."""
    run = secrets.token_hex(8)

    def note(moment: str, text: str = "", **totals: int) -> None:
        pairs = [part for item in totals.items() for part in item]
        NOTE_RUN(client, (keys.runs,), (sweep, moment, encode_text(text), run, *pairs))

    try:
        note("started")
        report = work()
        if not report.skipped:  # else another run is at it, and will say how it went
            removed = {"channels": report.channels, "messages": report.messages, "clients": report.clients}
            note("ended", json.dumps(asdict(report)), runs=1, **removed)
    except BaseException as error:
        with suppress(RedisError):  # Redis itself may be the trouble; the caller hears of it anyway
            note("failed", described(error), runs=1, failures=1, **removed_so_far())
        raise
    return report


def note_scheduled(client: Client, keys: Keys, entry: str) -> None:
    """Note that beat has just scheduled a run of an entry of its schedule; also while Redis is full."""
    NOTE_RUN(client, (keys.runs,), (entry, "scheduled", "", ""))


def scheduled_ages(client: Client, keys: Keys, entries: Sequence[str]) -> dict[str, float]:
    """Return for entries of the beat schedule how many seconds ago a run was last scheduled, by the server's clock.

    An entry that was never scheduled is absent; a time in the future counts as now.
    """
    fields = [f"{entry}:scheduled" for entry in entries]
    commands = [("HMGET", keys.runs, *fields), ("TIME",)]
    noted, (seconds, microseconds) = all_of(client, [Command(keys.runs, words) for words in commands])
    now_ms = int(seconds) * 1000 + int(microseconds) // 1000
    stored = {entry: (value or b"").strip() for entry, value in zip(entries, noted, strict=True)}
    return {entry: max(0, now_ms - int(then_ms)) / 1000 for entry, then_ms in stored.items() if then_ms.isdigit()}


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """What is recorded of a sweep. Times are ms since 1970 by the server's clock, None where there was none.

    Attributes:
        started_ms: of the last run.
        ended_ms: of the last run that came to its end, complete or not.
        report: of that one, as a mapping; empty where there was none.
        failed_ms: of the last run that failed.
        error: of that one.
        runs: that ended or failed, ever.
        failures: of these.
        channels: removed, ever; likewise the rest.
        messages: likewise.
        clients: likewise.
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
        report: dict[str, Any] = json.loads(text)
    except ValueError:  # there was none, or it is damaged
        return {}
    return report


def last_run(record: Mapping[bytes, bytes], sweep: str) -> LastRun:
    """Return what the hash ``chat:runs`` holds of a sweep."""
    noted: dict[str, tuple[int | None, str]] = {}
    for moment in ("started", "ended", "failed"):
        stored_ms, _, text = record.get(f"{sweep}:{moment}".encode(), b"").partition(b" ")
        noted[moment] = (int(stored_ms) if stored_ms else None, decode_text(text))
    totals = ("runs", "failures", "channels", "messages", "clients")
    return LastRun(
        started_ms=noted["started"][0],
        ended_ms=noted["ended"][0],
        report=_report(noted["ended"][1]),
        failed_ms=noted["failed"][0],
        error=noted["failed"][1],
        **{total: int(record.get(f"{sweep}:{total}".encode(), 0)) for total in totals},
    )
