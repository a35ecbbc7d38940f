"""What a person reads on a terminal of 80 columns: ages, sizes, names, and the screen of ``chat stats``."""

from __future__ import annotations

import json
from math import inf
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

if TYPE_CHECKING:
    from tasks.stats.figures import Stats, SweepStats
    from tasks.stats.usage import Memory, Queue

__all__ = ["age", "printable", "short", "size", "stats_lines", "verdict"]

MINUTE, HOUR, DAY = 60, 3600, 86400
WIDTH = 60  # characters of a name or an error that are shown


def age(seconds: float | None) -> str:
    """Return a span of time, roughly: ``12 s``, ``3 min``, ``5 h``, ``2 days``; ``-`` for none."""
    if seconds is None:
        return "-"
    for unit, name in ((DAY, "days"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.1f} s" if 0 < seconds < 1 else f"{seconds:.0f} s"


def size(count: float) -> str:
    """Return a number of bytes, roughly: ``1.2 MB``, ``12 MB``."""
    for name in ("bytes", "kB", "MB", "GB"):
        if count < 1000:  # noqa: PLR2004  decimal, as operators' tools count
            return f"{count:.1f} {name}" if count < 10 and name != "bytes" else f"{count:.0f} {name}"  # noqa: PLR2004
        count /= 1000
    return f"{count:.1f} TB"


def printable(body: Any) -> str:
    """Return a name or a body so that it cannot steer a terminal."""
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(body)


def verdict(sweep: SweepStats) -> str:
    """Return whether a sweep keeps up."""
    if left := sweep.last.report.get("due"):
        return f"left {left:,} due"
    if sweep.success_age is None:
        return "no success yet"
    if sweep.behind is None:
        return "by cron"
    return f"behind by {age(sweep.behind)}" if sweep.behind else "keeping up"


def stats_lines(stats: Stats, memory: Memory, fullest: list[tuple[str, int]], queue: Queue | str) -> list[str]:
    """Return the screen of ``chat stats``; of a queue that could not be read there is the reason."""
    limit = "no limit"
    if stats.memory_limit:
        limit = f"{size(stats.memory_limit)}, {100 * stats.memory_used / stats.memory_limit:.0f} % used"
    kinds = {"messages": memory.messages, "clients": memory.clients, "indexes": memory.indexes, "tokens": memory.tokens}
    return [
        _headline(stats),
        "",
        f"channels {stats.channels:,}, messages {stats.messages:,} ({stats.sent:,} sent), clients {stats.clients:,}",
        f"memory   {size(stats.memory_used)} of {limit}",
        f"         about {', '.join(f'{size(count)} {kind}' for kind, count in kinds.items())}",
        f"queue    {queue if isinstance(queue, str) else f'{queue.waiting:,} waiting, {queue.unacked:,} taken'}",
        "",
        *_sweep_lines(stats),
        *(["", "fullest channels"] if fullest else []),
        *(f"{count:9,}  {short(name)}" for name, count in fullest),
    ]


def _headline(stats: Stats) -> str:
    sweeps = stats.sweeps.values()
    late = max(sweep.behind or 0 for sweep in sweeps)
    if any(sweep.success_age is None for sweep in sweeps):
        return "not every sweep has succeeded yet: do a worker and beat run?"
    if late:
        return f"behind by {age(late)}: do a worker and beat run?"
    if unfinished := [name for name, sweep in stats.sweeps.items() if sweep.last.report.get("due")]:
        return f"not finished: {', '.join(unfinished)}"
    if by_cron := [sweep.success_age or 0 for sweep in sweeps if sweep.behind is None]:
        return f"by cron, and the oldest success is {age(max(by_cron))} old"  # what is late, only its schedule knows
    return "keeping up"


def _sweep_lines(stats: Stats) -> list[str]:
    lines = [f"{'sweep':15}{'':18} {'success':>8} {'took':>8} {'removed':>9} {'due':>8} {'overdue':>8}"]
    for name, sweep in stats.sweeps.items():
        report = sweep.last.report
        took = f"{report['seconds']:.3f} s" if report else "-"
        removed = f"{max(report['channels'], report['messages'], report['clients']):,}" if report else "-"
        lines.append(
            f"{name:15}{verdict(sweep):18} {age(sweep.success_age):>8} {took:>8} {removed:>9}"
            f" {sweep.due:>8,} {age(sweep.overdue) if sweep.due and sweep.overdue else '-':>8}"
        )
        past = [moment for moment in (sweep.ended_age, sweep.failed_age) if moment is not None]
        if sweep.started_age is not None and sweep.started_age < min(past, default=inf):
            lines.append(f"  running for {age(sweep.started_age)}, or broken off")
        if sweep.failed_age is not None and sweep.failed_age < (
            inf if sweep.success_age is None else sweep.success_age
        ):
            lines.append(short(f"  failed {age(sweep.failed_age)} ago: {sweep.last.error}"))
        if error := report.get("error"):
            lines.append(short(f"  {error}"))
    return lines


def short(text: str) -> str:
    """Return a name so that it fits a line and cannot steer a terminal; wide characters count twice."""
    shown, width = printable(text), 0
    for index, character in enumerate(shown):
        width += 2 if east_asian_width(character) in "WF" else 1
        if width > WIDTH:
            return f"{shown[:index]}..."
    return shown
