"""The counts of one run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Any

from chat.store.keys import decode_name
from tasks.functions import described

__all__ = ["Tally"]

EXAMPLES = 10
ROUNDS = 20  # that may name a channel in a row and remove nothing: lost ids, say, take one to mend


@dataclass(slots=True)
class Tally:
    """The counts of one run so far.

    Attributes:
        removed: number of channels, messages and clients removed, as far as the sweep counts them.
        handled: candidates looked at.
        due: channels left that are due.
        overdue_ms: how far the one waiting longest of these is past its limit.
        busy: shards that another run works on.
        broken: shards that cannot be cleaned, since a key of theirs is damaged.
        refused: channels that cannot be cleaned, or that the archive could not take; they stay, and are passed over.
        archived: messages handed over.
        error: the first error that did not end the run.
        examples: channels that would lose most, in a dry run.
        fruitless: how often each channel was named since something was last removed.
    """

    removed: Counter[str] = field(default_factory=Counter)
    handled: int = 0
    due: int = 0
    overdue_ms: int = 0
    busy: set[int] = field(default_factory=set)
    broken: set[int] = field(default_factory=set)
    refused: set[bytes] = field(default_factory=set)
    archived: int = 0
    error: str = ""
    examples: dict[bytes, int] = field(default_factory=dict)
    fruitless: Counter[bytes] = field(default_factory=Counter)

    @property
    def completed(self) -> bool:
        """Whether nothing is left to do."""
        return not (self.due or self.busy or self.broken or self.refused)

    def add(self, names: list[bytes], counts: dict[str, int]) -> None:
        """Add what a batch removed."""
        self.handled += len(names)
        self.removed.update(counts)

    def keep_examples(self, names: list[bytes], counts: list[int]) -> None:
        """Keep the channels that would lose most, of those before and these."""
        for name, count in zip(names, counts, strict=False):
            if count:
                self.examples[name] = self.examples.get(name, 0) + count
        self.examples = dict(nlargest(EXAMPLES, self.examples.items(), key=lambda item: item[1]))

    def note_rest(self, due: int, overdue_ms: int) -> None:
        """Note what is left in a shard."""
        self.due += due
        self.overdue_ms = max(self.overdue_ms, overdue_ms if due else 0)

    def watch(self, names: list[bytes], *, fruitful: bool) -> None:
        """Pass over channels that are named again and again while nothing is removed, so that every sweep ends."""
        if fruitful:
            self.fruitless.clear()
            return
        self.fruitless.update(names)
        for name in names:
            if self.fruitless[name] >= ROUNDS:
                self.refuse(name, f"is due, but nothing of it was removed in {ROUNDS} rounds: clean again")

    def skip(self, shard: int, error: BaseException | str) -> None:
        """Note a shard that cannot be cleaned."""
        self.broken.add(shard)
        self.fail(f"shard {shard}", error)

    def refuse(self, name: bytes, error: BaseException | str, what: str = "") -> None:
        """Note a channel that cannot be cleaned."""
        self.refused.add(name)
        self.fail(f"channel {decode_name(name)!r}{what}", error)

    def refuse_places(self, names: list[bytes], errors: list[Any]) -> None:
        """Note the channels that a script could do nothing with, given as pairs of a place from 1 and an error."""
        for place, error in zip(errors[::2], errors[1::2], strict=True):
            self.refuse(names[place - 1], decode_name(error))

    def fail(self, where: str, error: BaseException | str) -> None:
        """Note an error that does not end the run; the first stays."""
        text = error if isinstance(error, str) else described(error)
        self.error = self.error or f"{where}: {text}"
