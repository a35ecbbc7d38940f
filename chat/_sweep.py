"""One run of one sweep: which shards have work, whose turn it is, batch by batch, and what came of it."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from heapq import nlargest
from typing import TYPE_CHECKING, Any

from chat._archive import Archive, Hook, archive_at, hook_at
from chat._arguments import at_least, milliseconds, shown
from chat._errors import InvalidArgumentError
from chat._keys import Keys, decode_name
from chat._layout import confirm_shards
from chat._messages import decode_slice
from chat._nodes import raise_first
from chat._report import Report
from chat._runs import recorded
from chat._scripts import DUE, FORGET_CLIENTS, REMOVE_CHANNELS, TRIM_BACKLOGS, Script, together
from chat.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chat._nodes import Client


__all__ = ["Rule", "Sweep"]


LEASE_MS = 30_000  # a shard is free again this long after the last sign of life of its sweep
PROGRESS_EVERY = 0.5  # seconds
EXAMPLES = 10
# Candidates a call, under 0.5 ms of the server's time: senders beside a sweep wait for as long. 100 remove a fifth
# more in a second and hold everybody up twice as long, measured on redis-server 7.0 and Valkey 9.1.
BATCH = 30
ARCHIVED = (REMOVE_CHANNELS, TRIM_BACKLOGS)  # scripts that remove messages
TOLD = (REMOVE_CHANNELS, FORGET_CLIENTS)  # scripts that can say which channels, or clients, they removed


@dataclass(frozen=True, slots=True)
class Rule:
    """One due-index and the script that removes what it names."""

    index: str
    by: str  # "age" or "size", see due.lua
    limit: int  # ms or messages
    script: Script
    shard_keys: tuple[str, ...]
    channel_keys: tuple[str, ...]
    args: tuple[int, ...]  # of the script, before its mode
    budget: tuple[int | str, ...]  # and after it
    mark: bool  # at least as strict as the settings: where it finds nothing due, the sweep has done its work


@dataclass(slots=True)
class _Tally:
    """What a run has counted so far."""

    removed: list[int]
    handled: int = 0
    due: int = 0
    overdue_ms: int = 0
    busy: set[int] = field(default_factory=set)
    archived: int = 0
    refused: set[bytes] = field(default_factory=set)  # channels that the archive could not take
    error: str = ""
    examples: dict[bytes, int] = field(default_factory=dict)

    def add(self, names: list[bytes], counts: list[int]) -> None:
        """Add what a batch removed; and of a dry run, that counts for each name, keep those that would lose most."""
        self.handled += len(names)
        of_names = counts[len(self.removed) :]
        self.removed = [total + count for total, count in zip(self.removed, counts, strict=False)]
        for name, count in zip(names, of_names, strict=False):
            if count:
                self.examples[name] = self.examples.get(name, 0) + count
        self.examples = _largest(self.examples)

    def failed(self, what: str, error: Exception) -> None:
        """Note the first error that does not end the run."""
        self.error = self.error or f"{what}: {type(error).__name__}: {error}"


class Sweep:
    """One run of one sweep over some shards."""

    def __init__(
        self,
        name: str,
        client: Client,
        settings: Settings | None,
        shards: Iterable[int] | None,
        time_budget: float | None,
        progress: Callable[[int, int], object] | None,
        *,
        dry_run: bool,
    ) -> None:
        self.settings = settings or Settings()
        self._name, self._client, self._progress = name, client, progress
        self._keys = Keys(self.settings.prefix, self.settings.shards)
        self._shards = _chosen(shards, self.settings.shards)
        if not isinstance(dry_run, bool):
            message = f"dry_run is {shown(dry_run)}, must be true or false"
            raise InvalidArgumentError(message)
        self._dry_run = dry_run
        self._owner = "" if dry_run else secrets.token_hex(8)
        self._archive: Archive | None = None
        self._hook: Hook | None = None
        self._started = self._tell_at = time.monotonic()
        budget_ms = None if time_budget is None else milliseconds("time_budget", time_budget)
        self._deadline = None if budget_ms is None else self._started + budget_ms / 1000

    def run(self, rules: list[Rule], counts: tuple[str, ...]) -> Report:
        """Apply the rules to every shard that has something due."""
        if self._dry_run:
            return self._run(rules, counts)
        return recorded(lambda: self._run(rules, counts), self._client, self._keys, self._name)

    def _run(self, rules: list[Rule], counts: tuple[str, ...]) -> Report:
        if not self._dry_run:
            self._archive = archive_at(self.settings.archive) if rules[0].script in ARCHIVED else None
            self._hook = hook_at(self.settings.on_expire) if rules[0].script in TOLD else None
        confirm_shards(self._client, self._keys, fix=False)
        tally = _Tally([0] * len(counts))
        work = [(rule, shard) for rule in rules for shard in self._shards_with_work(rule, tally)]
        expected = tally.due
        tally.due = tally.overdue_ms = 0
        for rule, shard in work:
            self._clean(rule, shard, tally, expected)
        if work:
            self._tell(tally.handled, expected)
        return Report(
            sweep=self._name,
            dry_run=self._dry_run,
            examples=tuple((decode_name(name), count) for name, count in tally.examples.items()),
            due=tally.due,
            overdue=tally.overdue_ms / 1000,
            busy=len(tally.busy),
            seconds=time.monotonic() - self._started,
            archived=tally.archived,
            error=tally.error,
            completed=not tally.due and not tally.busy,
            **dict(zip(counts, tally.removed, strict=True)),
        )

    def _shards_with_work(self, rule: Rule, tally: _Tally) -> list[int]:
        """Return the shards that have something due by a rule, seen in one round trip."""
        calls = [self._due_call(rule, shard, 0, 0, "") for shard in self._shards]
        replies = DUE.many(self._client, calls)
        tally.due += sum(due for due, *_ in replies)
        return [shard for shard, (due, *_) in zip(self._shards, replies, strict=True) if due]

    def _clean(self, rule: Rule, shard: int, tally: _Tally, expected: int) -> None:
        """Go on until nothing is due, the time is over, or another run turns out to be at work.

        Each round trip removes one batch and names the next.
        """
        offset = 0
        reply = DUE(self._client, *self._due_call(rule, shard, offset, self._batch(), self._owner))
        while names := reply[2:]:
            if self._dry_run:
                offset += len(names)  # nothing moves, so turn the page
            handed = self._hand_over(self._archive, rule, shard, names, tally) if self._archive else []
            offset += len(tally.refused.intersection(names))  # they stay where they are, too
            removal = (rule.script, *self._call(rule, shard, names, self._mode(), handed))
            following = (DUE, *self._due_call(rule, shard, offset, self._batch(), self._owner))
            counts, reply = raise_first(together(self._client, [removal, following]))
            if self._hook:
                counts = _announce(self._hook, names, counts, tally)
            tally.add(names, counts)
            if time.monotonic() >= self._tell_at:
                self._tell(tally.handled, expected)
        due, overdue_ms = reply
        if due < 0:
            tally.busy.add(shard)
            return
        left = max(0, due - offset) if self._dry_run else due  # of a dry run's page, what has gone meanwhile
        tally.due += left
        tally.overdue_ms = max(tally.overdue_ms, overdue_ms if left else 0)

    def _hand_over(self, archive: Archive, rule: Rule, shard: int, names: list[bytes], tally: _Tally) -> list[int]:
        """Give the archive what is about to go; return the id up to which it has each channel, -1 for not at all."""
        slices = rule.script(self._client, *self._call(rule, shard, names, "read"))[-len(names) :]
        handed = dict(zip(names, slices, strict=True))
        wanted = {name: decode_slice(*handed[name]) for name in names if handed[name][1:] and name not in tally.refused}
        by_text = {decode_name(name): name for name in wanted}
        errors = archive.keep(shard, {text: wanted[name] for text, name in by_text.items()}) if wanted else {}
        for text, error in errors.items():
            tally.refused.add(by_text[text])
            tally.failed("not archived", error)
        tally.archived += sum(len(wanted[name]) for name in wanted if name not in tally.refused)
        return [-1 if name in tally.refused else handed[name][0] for name in names]

    def _mode(self) -> str:
        return "count" if self._dry_run else "tell" if self._hook else "remove"

    def _batch(self) -> int:
        """Return how many candidates to ask for."""
        return 0 if self._is_over() else BATCH

    def _call(self, rule: Rule, shard: int, names: list[bytes], mode: str, handed: Iterable[int] = ()) -> Any:
        keys = self._keys.of_shard(shard, *rule.shard_keys)
        keys += self._keys.of_channels(shard, names, *rule.channel_keys)
        return keys, (*rule.args, mode, *rule.budget, *names, *handed)

    def _due_call(self, rule: Rule, shard: int, offset: int, batch: int, owner: str) -> tuple[Any, Any]:
        keys = self._keys.of_shard(shard, rule.index, f"lease:{self._name}", "meta")
        mark = f"done:{rule.index}" if rule.mark and not self._dry_run else ""
        return keys, (rule.by, rule.limit, offset, batch, owner, LEASE_MS, mark)

    def _tell(self, handled: int, expected: int) -> None:
        """Report progress; not at every batch, a listener may cost more than that."""
        self._tell_at = time.monotonic() + PROGRESS_EVERY
        if self._progress:
            self._progress(handled, max(expected, handled))

    def _is_over(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline


def _announce(hook: Hook, names: list[bytes], counts: list[Any], tally: _Tally) -> list[int]:
    """Call ``CHAT_ON_EXPIRE`` for what has gone; return the counts alone."""
    totals, told = counts[: len(tally.removed)], counts[len(tally.removed) :]
    for name, gone in zip(names, told, strict=False):
        if gone:
            clients = None if gone == 1 else tuple(map(decode_name, gone))
            try:
                hook(decode_name(name), clients)
            except Exception as error:  # noqa: BLE001  a hook of the user's does not stop the cleaning
                tally.failed("CHAT_ON_EXPIRE", error)
    return totals


def _largest(counts: dict[bytes, int]) -> dict[bytes, int]:
    return dict(nlargest(EXAMPLES, counts.items(), key=lambda item: item[1]))


def _chosen(shards: Iterable[int] | None, count: int) -> list[int]:
    """Return the shards to clean: all, or those given, each once."""
    if shards is None:
        return list(range(count))
    try:
        chosen = sorted({at_least(0, "shard", shard) for shard in shards})
    except TypeError:
        chosen = []
    if not chosen or isinstance(shards, str) or chosen[-1] >= count:
        message = f"shards is {shown(shards)}, must be a list of numbers from 0 to {count - 1}, or None for all"
        raise InvalidArgumentError(message)
    return chosen
