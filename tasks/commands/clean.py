"""``celery -A tasks clean``: run a sweep by hand, in a worker or in this process."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

import click
from redis.exceptions import OutOfMemoryError
from rich.table import Table
from rich.text import Text

from chat import InvalidArgumentError
from chat.screen import OutputError, age, counted, drop_output, noun, printable
from tasks.cleaning import SWEEPS
from tasks.commands.console import DONE, INCOMPLETE, RUNNING, Bar, console, running, write
from tasks.commands.remote import run_in_worker
from tasks.periodic import chat_redis, run_sweep
from tasks.stats.figures import read_stats

if TYPE_CHECKING:
    from celery import Celery

    from tasks.cleaning import Report

__all__ = ["clean"]

SEVERITY = (DONE, RUNNING, INCOMPLETE)
WIDTH = 79  # columns of a row
ASK_ABOVE = 0.5  # of all channels or messages


def clean(
    app: Celery, sweeps: list[str], *, now: bool, dry_run: bool, yes: bool, as_json: bool, **overrides: Any
) -> None:
    """Run sweeps one after another, print their reports and exit with the most severe of their codes."""
    given = {name: value for name, value in overrides.items() if value not in (None, ())}
    given |= {"dry_run": True} if dry_run else {}
    code = DONE
    with running("clean"):
        _confirm_shards(given.get("shards", ()))
        try:
            _preview(sweeps, given, ask=sys.stdin.isatty() and not (yes or dry_run))
            for number, sweep in enumerate(sweeps):
                with Bar(sweep) as bar:
                    if now:
                        report = run_sweep(SWEEPS[sweep], given, time_budget=None, progress=bar)
                    else:
                        report = run_in_worker(app, sweep, given, bar)
                _show(report, as_json=as_json, first=not number)
                code = max(code, _code_of(report), key=SEVERITY.index)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(_name_option(str(error), given)) from error
        except OutOfMemoryError as error:
            raise click.ClickException(_out_of_memory(error, now=now)) from error
    sys.exit(code)


def _confirm_shards(shards: tuple[int, ...]) -> None:
    """Refuse a ``--shard`` that the chat does not have."""
    highest = chat_redis()[1].shards - 1
    for shard in shards:
        if not 0 <= shard <= highest:
            message = f"--shard is {shard}, must be a whole number from 0 to {highest}"
            raise InvalidArgumentError(message)


def _name_option(message: str, overrides: dict[str, Any]) -> str:
    """Return the message about an override with the name of its option."""
    name = message.partition(" ")[0]
    return message.replace(name, f"--{name.replace('_', '-')}", 1) if name in overrides else message


def _preview(sweeps: list[str], overrides: dict[str, Any], *, ask: bool) -> None:
    """Try every argument before anything is removed, and ask before more than half of everything goes.

    Both need a dry run in this process; when nothing is to be asked, it ends after its first look.
    """
    reports = []
    for sweep in sweeps:
        with Bar(f"{sweep}?") as bar:
            budget = None if ask else 0
            dry = overrides | {"dry_run": True}
            reports.append(run_sweep(SWEEPS[sweep], dry, time_budget=budget, progress=bar))
    if not ask:
        return
    client, settings = chat_redis()
    stored = read_stats(client, settings=settings)
    channels, messages = (sum(getattr(report, kind) for report in reports) for kind in ("channels", "messages"))
    if channels > ASK_ABOVE * stored.channels or messages > ASK_ABOVE * stored.messages:
        lines = [
            f"{report.sweep} would remove {report.channels:,} of {counted(stored.channels, 'channel')}"
            f" and {report.messages:,} of {counted(stored.messages, 'message')}"
            for report in reports
            if report.channels or report.messages
        ]
        if not click.confirm("\n".join([*lines, "Go on?"]), err=True):
            message = "not confirmed, nothing was removed"
            raise click.ClickException(message)


def _show(report: Report, *, as_json: bool, first: bool) -> None:
    """Print a report to stdout.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        if as_json:
            print(json.dumps(dataclasses.asdict(report)), flush=True)
        else:
            write(_row(report, head=first), *_notes(report))
    except BrokenPipeError:  # `... | head -1`: the sweeps that follow still run
        drop_output()
    except OSError as error:
        drop_output()
        message = f"{report.sweep} ran, but its report could not be written: {error.strerror}"
        raise OutputError(message) from error


def _row(report: Report, *, head: bool) -> Table | Text:
    """Return what was or would be removed, and what is still due; a sentence where the terminal is too narrow."""
    if console(sys.stdout).width < WIDTH:
        return Text(str(dataclasses.replace(report, error="")))
    cells = {
        "channels": f"{report.channels:,}",
        "messages": f"{report.messages:,}",
        "clients": f"{report.clients:,}",
        "due": f"{report.due:,}",
        "overdue": age(report.overdue) if report.overdue else "-",
        "took": f"{report.seconds:.2f} s",
    }
    rows = Table(box=None, show_header=head, pad_edge=False, padding=(0, 1, 0, 0))
    rows.add_column("sweep", min_width=14, no_wrap=True)
    rows.add_column("outcome", min_width=10)
    for name in cells:
        rows.add_column(name, min_width=8, justify="right")
    rows.add_row(report.sweep, _outcome(report), *cells.values())
    return rows


def _outcome(report: Report) -> str:
    """Return in a word what became of a sweep."""
    if report.skipped:
        return "busy"
    if not report.completed:
        return "incomplete"
    return "would go" if report.dry_run else "done"


def _notes(report: Report) -> list[Text]:
    """Return the channels that lose most, and the error of a report, as lines."""
    kind = "client" if report.sweep == "clean_clients" else "message"
    lines = [f"{count:>14,} {noun(count, kind)} of {printable(name)}" for name, count in report.examples]
    lines += [f"  {report.error}"] if report.error else []
    return [Text(line, no_wrap=True, overflow="ellipsis") for line in lines]


def _code_of(report: Report) -> int:
    """Return the exit code of a report."""
    if report.skipped:
        return RUNNING
    return DONE if report.completed else INCOMPLETE


def _out_of_memory(error: OutOfMemoryError, *, now: bool) -> str:
    """Return what to do about a full Redis."""
    if now:
        return f"Redis is full and refused the cleaning ({error}): raise maxmemory, or delete other keys"
    return "Redis is full and takes no task: use --now to clean in this process"
