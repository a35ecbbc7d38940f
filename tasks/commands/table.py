"""What ``celery -A tasks clean`` shows: a table of reports on stdout, a progress bar on a terminal's stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Self

import click

from chat._output import noun
from tasks.commands.screen import age, short

if TYPE_CHECKING:
    from tasks.cleaning import Report

__all__ = ["HEAD", "Bar", "examples", "row"]

HEAD = "sweep          outcome    channels  messages  clients     due overdue     took"


def row(report: Report) -> str:
    """Return a report as a line below `HEAD`: what went, or would go, and what is still due."""
    return (
        f"{report.sweep:15}{outcome(report):10} {report.channels:>8,} {report.messages:>9,} {report.clients:>8,}"
        f" {report.due:>7,} {age(report.overdue) if report.overdue else '-':>7} {f'{report.seconds:.2f} s':>8}"
    )


def outcome(report: Report) -> str:
    """Return in a word what came of a sweep."""
    if report.skipped:
        return "busy"
    if not report.completed:
        return "incomplete"
    return "would go" if report.dry_run else "done"


def examples(report: Report) -> list[str]:
    """Return the channels that would lose most, as lines."""
    kind = "client" if report.sweep == "clean_clients" else "message"
    return [f"{count:>14,} {noun(count, kind)} of {short(name)}" for name, count in report.examples]


class Bar:
    """A progress bar where somebody looks: called with the number of candidates handled and due.

    Args:
        label: stands before it.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __call__(self, done: int, total: int) -> None:
        """Show how far it is."""
        if not sys.stderr.isatty():
            return
        if self._bar is None:
            self._bar = click.progressbar(length=total, file=sys.stderr)
            self._bar.__enter__()
        self._bar.label, self._bar.show_eta = f"{self._label:15}", True
        self._bar.length = total
        self._bar.update(done - self._bar.pos)

    def quiet(self, seconds: float) -> None:
        """Show for how long nothing was heard, in the place of an estimate that no longer holds."""
        if self._bar:
            self._bar.label, self._bar.show_eta = f"{self._label:15}no news for {age(seconds)}", False
            self._bar.render_progress()

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._bar.__exit__(None, None, None)
