"""What a run of a sweep has counted so far."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from heapq import nlargest

from chat.store.keys import decode_name

__all__ = ["Tally", "described"]

EXAMPLES = 10
LONGEST_ERROR = 500  # characters of an error's text that are kept
ROUNDS = 20  # that may name a channel in a row and remove nothing: lost ids, say, take one to mend


@dataclass(slots=True)
class Tally:
    """The counts of one run.

    Attributes:
        removed: totals, in the order of the sweep's counts.
        handled: candidates looked at.
        due: channels that are left.
        overdue_ms: how far the one waiting longest of these is past its limit.
        busy: shards that another run works on.
        broken: shards that cannot be cleaned, since a key of theirs is damaged.
        refused: channels that cannot be cleaned, or that the archive could not take; they stay, and are passed over.
        archived: messages handed over.
        error: the first that did not end the run.
        examples: of a dry run, the channels that would lose most.
        named: how often each channel was named since something was last removed.
    """

    removed: list[int]
    handled: int = 0
    due: int = 0
    overdue_ms: int = 0
    busy: set[int] = field(default_factory=set)
    broken: set[int] = field(default_factory=set)
    refused: set[bytes] = field(default_factory=set)
    archived: int = 0
    error: str = ""
    examples: dict[bytes, int] = field(default_factory=dict)
    named: Counter[bytes] = field(default_factory=Counter)

    @property
    def completed(self) -> bool:
        """Whether nothing is left to do."""
        return not (self.due or self.busy or self.broken or self.refused)

    def add(self, names: list[bytes], counts: list[int], of_names: list[int]) -> None:
        """Add what a batch removed; and of a dry run, that counts for each name, keep those that would lose most."""
        self.handled += len(names)
        self.removed = [total + count for total, count in zip(self.removed, counts, strict=True)]
        for name, count in zip(names, of_names, strict=False):
            if count:
                self.examples[name] = self.examples.get(name, 0) + count
        self.examples = dict(nlargest(EXAMPLES, self.examples.items(), key=lambda item: item[1]))

    def watch(self, names: list[bytes], counts: list[int]) -> None:
        """Pass over channels that are named again and again while nothing is removed, so that every sweep ends."""
        if any(counts):
            self.named.clear()
            return
        self.named.update(names)
        for name in names:
            if self.named[name] >= ROUNDS:
                self.refuse(name, f"is due, but nothing of it was removed in {ROUNDS} rounds: clean again")

    def skip(self, shard: int, error: BaseException | str) -> None:
        """Note a shard that cannot be cleaned."""
        self.broken.add(shard)
        self.fail(f"shard {shard}", error)

    def refuse(self, name: bytes, error: BaseException | str, what: str = "") -> None:
        """Note a channel that cannot be cleaned."""
        self.refused.add(name)
        self.fail(f"channel {decode_name(name)!r}{what}", error)

    def fail(self, where: str, error: BaseException | str) -> None:
        """Note an error that does not end the run; the first stays."""
        text = error if isinstance(error, str) else described(error)
        self.error = self.error or f"{where}: {text}"


def described(error: BaseException) -> str:
    """Return an error with its class in at most `LONGEST_ERROR` characters; it may be of any class of the user's."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  a text that cannot be had must not end the sweep
        text = "its text cannot be read"
    text = f"{type(error).__name__}: {text}"
    return text if len(text) <= LONGEST_ERROR else f"{text[:LONGEST_ERROR]}..."
