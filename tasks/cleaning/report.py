"""The report of a sweep."""

from __future__ import annotations

from dataclasses import dataclass

from chat.screen import age, counted

__all__ = ["Report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The counts of a run: what it did, or would do.

    Attributes:
        channels: channels removed.
        messages: messages removed; with a channel, those that it still had.
        clients: clients forgotten.
        due: channels left that are due, or may be: whether a client has expired is only known after a look.
        overdue: seconds by which the channel that waits longest is past its limit; 0 where the limit is a count.
        busy: shards that were left to another run of this sweep ("already running").
        seconds: seconds that the run took.
        completed: whether nothing that was due is left, and no shard was busy or damaged.
        archived: messages handed over to the archive; more than removed where a message came in between.
        error: the first error that did not end the run, with its channel or shard: in what is stored there, in the
            archive, or in the function of ``CHAT_ON_EXPIRE``. What could not be kept or read was not removed.
        dry_run: whether nothing was removed, and the counts say what would have been.
        sweep: ``clean_channels``, ``clean_backlog`` or ``clean_clients``.
        examples: in a dry run, at most ten channels that would lose most, with the number of messages or clients.
    """

    channels: int = 0
    messages: int = 0
    clients: int = 0
    due: int = 0
    overdue: float = 0.0
    busy: int = 0
    seconds: float = 0.0
    completed: bool = True
    archived: int = 0
    error: str = ""
    dry_run: bool = False
    sweep: str
    examples: tuple[tuple[str, int], ...] = ()

    @property
    def skipped(self) -> bool:
        """Whether another run was already doing all the work there was."""
        return bool(self.busy) and not (self.due or self.channels or self.messages or self.clients or self.error)

    def __str__(self) -> str:
        """Return the report as one line, zeros left out."""
        counts = {"channel": self.channels, "message": self.messages, "client": self.clients}
        gone = ", ".join(counted(count, kind) for kind, count in counts.items() if count) or "nothing"
        line = f"{self.sweep}: {'would remove' if self.dry_run else 'removed'} {gone} in {self.seconds:.3f} s"
        if self.busy:
            line += f"; already running in {counted(self.busy, 'shard')}"
        if self.due and not self.dry_run:
            line += f"; {counted(self.due, 'channel')} still due"
            line += f", the longest for {age(self.overdue)}" if self.overdue else ""
        return f"{line}; {self.error}" if self.error else line
