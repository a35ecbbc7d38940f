"""``chat restore``: read an archive back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from chat._output import counted, say
from chat.store.connect import connect
from tasks.archive.restore import restore
from tasks.commands.screen import printable

if TYPE_CHECKING:
    import argparse

    from tasks.archive.restore import Restored
    from tasks.settings import Settings

__all__ = ["add_restore"]


def add_restore(parser: argparse.ArgumentParser) -> None:
    """Give the command its arguments."""
    again = "may be repeated"
    parser.add_argument("folder", type=Path, help="that CHAT_ARCHIVE named; nothing is written into it")
    parser.add_argument("--channel", action="append", default=[], metavar="NAME", help=f"only this one; {again}")
    parser.add_argument("--day", action="append", default=[], metavar="YYYY-MM-DD", help=f"only this one; {again}")
    parser.add_argument("--dry-run", action="store_true", help="say what would come back, change nothing")
    parser.add_argument("--json", action="store_true", help="a JSON object for each channel")
    parser.set_defaults(run=_restore)


def _restore(options: argparse.Namespace, settings: Settings) -> None:
    client = connect(settings.redis_url)
    found = restore(
        client,
        options.folder,
        channels=options.channel,
        days=options.day,
        dry_run=options.dry_run,
        settings=settings,
    )
    for restored in found:
        print(json.dumps(dataclasses.asdict(restored)) if options.json else _line(restored, dry_run=options.dry_run))
    if any(restored.messages for restored in found) and not options.dry_run:
        hint = "cleaning removes again what is over the limits: raise them, or read what you need now"
        say(hint)


def _line(restored: Restored, *, dry_run: bool) -> str:
    back = f"{'would come ' if dry_run else ''}back"
    line = f"{printable(restored.channel)}: {counted(restored.messages, 'message')} {back}"
    if restored.messages:
        line += f", ids {restored.first} to {restored.last}"
    if restored.left:
        line += f"; {restored.left} {'would not' if dry_run else 'are not'}: {restored.reason}"
    return line
