"""The screen of ``celery -A tasks stats``."""

from __future__ import annotations

import dataclasses
from math import inf
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from chat.screen import age, printable, size
from tasks.commands.console import Fitting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from tasks.stats.usage import Memory, Queue
    from tasks.stats.values import ShardStats, Stats, SweepStats

__all__ = ["Reading", "line", "screen", "verdict"]

# Of the tables, and of those for narrow terminals.
SWEEP_COLUMNS = ("success", "took", "removed", "due", "overdue"), ("success", "due", "overdue")
DUE = ("idle", "over_backlog", "too_old", "expired")
SHARD_COLUMNS = ("shard", "channels", "messages", "clients", *DUE), ("shard", "channels", *DUE)


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """The state of Redis and the broker at one moment; in place of a queue that could not be read, the reason."""

    stats: Stats
    memory: Memory
    fullest: list[tuple[str, int]]
    queue: Queue | str


def screen(reading: Reading, *, shards: bool = False) -> Group:
    """Return the screen of ``celery -A tasks stats``."""
    found, queue = reading.stats, reading.queue
    limit = "no limit"
    if found.memory_limit:
        limit = f"{size(found.memory_limit)}, {100 * found.memory_used / found.memory_limit:.0f} % used"
    kinds = ", ".join(f"{size(count)} {kind}" for kind, count in dataclasses.asdict(reading.memory).items())
    facts = [
        "",
        f"channels {found.channels:,}, messages {found.messages:,} ({found.sent:,} sent), clients {found.clients:,}",
        f"memory   {size(found.memory_used)} of {limit}",
        f"         about {kinds}",
        f"queue    {queue if isinstance(queue, str) else f'{queue.waiting:,} waiting, {queue.unacked:,} taken'}",
        "",
    ]
    notes = [f"  {name}: {printable(note)}" for name, sweep in found.sweeps.items() for note in _problems(sweep)]
    fullest = [f"{count:9,}  {printable(name)}" for name, count in reading.fullest]
    sweeps = Fitting(*(_sweep_table(found.sweeps, *columns) for columns in SWEEP_COLUMNS))
    parts: list[RenderableType] = [_headline(found), *map(line, facts), sweeps, *map(line, notes)]
    parts += map(line, ["", "fullest channels", *fullest] if fullest else [])
    if shards:
        parts += [line(""), Fitting(*(_shard_table(found.shards, *columns) for columns in SHARD_COLUMNS))]
    return Group(*parts)


def line(text: str, style: str = "") -> Text:
    """Return a line that a narrow terminal cuts off."""
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _headline(found: Stats) -> Text:
    """Return in one line whether cleaning keeps up."""
    sweeps = found.sweeps.values()
    late = max(sweep.behind or 0 for sweep in sweeps)
    if any(sweep.success_age is None for sweep in sweeps):
        return line("not every sweep has succeeded yet: do a worker and beat run?", "bold yellow")
    if late:
        return line(f"behind by {age(late)}: do a worker and beat run?", "bold red")
    if unfinished := [name for name, sweep in found.sweeps.items() if sweep.last.report.get("due")]:
        return line(f"not finished: {', '.join(unfinished)}", "bold yellow")
    if by_cron := [sweep.success_age or 0 for sweep in sweeps if sweep.behind is None]:
        # Only the schedule knows what is late.
        return line(f"by cron, and the oldest success is {age(max(by_cron))} old")
    return line("keeping up", "bold green")


def verdict(sweep: SweepStats) -> str:
    """Return whether a sweep keeps up."""
    if left := sweep.last.report.get("due"):
        return f"left {left:,} due"
    if sweep.success_age is None:
        return "no success yet"
    if sweep.behind is None:
        return "by cron"
    return f"behind by {age(sweep.behind)}" if sweep.behind else "keeping up"


def _sweep_table(sweeps: dict[str, SweepStats], *columns: str) -> Table:
    """Return a row for each sweep."""
    rows = Table("sweep", "", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        rows.add_column(name, justify="right", min_width=8)
    for name, sweep in sweeps.items():
        report = sweep.last.report
        cells = {
            "success": age(sweep.success_age),
            "took": f"{report['seconds']:.3f} s" if report else "-",
            "removed": f"{max(report['channels'], report['messages'], report['clients']):,}" if report else "-",
            "due": f"{sweep.due:,}",
            "overdue": age(sweep.overdue) if sweep.due and sweep.overdue else "-",
        }
        rows.add_row(name, verdict(sweep), *(cells[column] for column in columns))
    return rows


def _problems(sweep: SweepStats) -> Iterator[str]:
    """Yield what else an operator should know about a sweep."""
    past = [moment for moment in (sweep.ended_age, sweep.failed_age) if moment is not None]
    if sweep.started_age is not None and sweep.started_age < min(past, default=inf):
        yield f"running for {age(sweep.started_age)}, or broken off"
    success_age = inf if sweep.success_age is None else sweep.success_age
    if sweep.failed_age is not None and sweep.failed_age < success_age:
        yield f"failed {age(sweep.failed_age)} ago: {sweep.last.error}"
    if error := sweep.last.report.get("error"):
        yield str(error)


def _shard_table(shards: tuple[ShardStats, ...], *columns: str) -> Table:
    """Return a row for each shard."""
    rows = Table(box=None, pad_edge=False)
    for name in columns:
        rows.add_column(name, justify="right")
    for shard in shards:
        rows.add_row(*(str(getattr(shard, name)) for name in columns))
    return rows
