"""``celery -A tasks restore``: put archived messages back."""

from __future__ import annotations

import dataclasses
import json
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chat import InvalidArgumentError
from chat.screen import counted, printable, say
from chat.store.connect import connect
from tasks.archive.restore import NothingSentError
from tasks.archive.restore import restore as restore_archive
from tasks.commands.console import DONE, INCOMPLETE, running
from tasks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Collection

    from tasks.archive.channel import Restored

__all__ = ["restore"]


def restore(
    archive: str, *, since: str | None, days: Collection[str], dry_run: bool, as_json: bool, **options: Any
) -> None:
    """Restore an archive, print what became of each channel and exit with 3 where messages are left."""
    with running("restore"):
        settings = Settings.from_env()
        dates = [_day("--day", day) for day in days] if since is None else _days_since(since, days)
        client = connect(settings.redis_url)
        try:
            found = restore_archive(client, Path(archive), days=dates, dry_run=dry_run, settings=settings, **options)
        except NothingSentError:
            when = f"on {', '.join(map(str, dates))}" if since is None else f"on or after {since}"
            message = f"nothing in {archive} was sent {when}"
            raise InvalidArgumentError(message) from None
        code = INCOMPLETE if any(channel.left for channel in found) else DONE
        for channel in found:
            print(json.dumps(dataclasses.asdict(channel)) if as_json else _line(channel, dry_run=dry_run))
        if any(channel.messages for channel in found) and not dry_run:
            say("cleaning will remove again what is over the limits: raise them, or read what you need now")
    sys.exit(code)


def _days_since(since: str, days: Collection[str]) -> list[date]:
    """Return the days of ``--since``, up to tomorrow: this machine's clock may be behind that of Redis."""
    if days:
        message = "--since and --day are both given, must be one of them"
        raise InvalidArgumentError(message)
    first = _day("--since", since)
    count = (datetime.now(UTC).date() - first).days + 2
    return [first + timedelta(number) for number in range(max(1, count))]  # no days would mean all of them


def _day(option: str, given: str) -> date:
    try:
        return date.fromisoformat(given)
    except ValueError:
        message = f"{option} is {given!r}, must be a date such as 2026-11-24"
        raise InvalidArgumentError(message) from None


def _line(channel: Restored, *, dry_run: bool) -> str:
    """Return what was or would be restored of a channel."""
    back = f"{'would come ' if dry_run else ''}back"
    text = f"{printable(channel.channel)}: {counted(channel.messages, 'message')} {back}"
    if channel.messages:
        text += f", ids {channel.first} to {channel.last}"
    if channel.left:
        text += f"; {channel.left} {'would not' if dry_run else 'are not'}: {channel.reason}"
    return text
