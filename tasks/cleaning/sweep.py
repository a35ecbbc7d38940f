"""One run of one sweep: which shards have work, whose turn it is, batch by batch, and what came of it."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisClusterException, RedisError, ResponseError

from chat import InvalidArgumentError
from chat.store.arguments import at_least, milliseconds, shown
from chat.store.keys import Keys, decode_name
from chat.store.layout import confirm_shards
from chat.store.nodes import raise_first
from chat.store.scripts import Call, Script, call_all
from tasks.cleaning.handover import HandOver
from tasks.cleaning.report import Report
from tasks.cleaning.runs import recorded
from tasks.cleaning.scripts import DUE, EPOCH, RELEASE
from tasks.cleaning.tally import Tally
from tasks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chat.store.nodes import Client


__all__ = ["Rule", "Sweep"]


LEASE_MS = 30_000  # a shard is free again this long after the last sign of life of its sweep
PROGRESS_EVERY = 0.5  # seconds
# Candidates a call, under 0.5 ms of the server's time: senders beside a sweep wait for as long. 100 remove a fifth
# more in a second and hold everybody up twice as long, measured on redis-server 7.0 and Valkey 9.1.
BATCH = 30


@dataclass(frozen=True, slots=True)
class Rule:
    """One due-index and the script that removes what it names."""

    index: str
    by: str  # "age" or "size", see due.lua
    limit: int  # ms or messages
    script: Script
    shard_keys: tuple[str, ...]
    channel_keys: tuple[str, ...]
    args: tuple[int, ...]  # of the script, between the lease's and its mode
    budget: tuple[int | str, ...]  # and after it
    mark: bool  # at least as strict as the settings: where it finds nothing due, the sweep has done its work


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
        ends: tuple[type[Exception], ...] = (),
    ) -> None:
        self.settings = settings or Settings()
        self._name, self._client, self._progress, self._ends = name, client, progress, ends
        self._keys = Keys(self.settings.prefix, self.settings.shards)
        self._shards = _chosen(shards, self.settings.shards)
        if not isinstance(dry_run, bool):
            message = f"dry_run is {shown(dry_run)}, must be true or false"
            raise InvalidArgumentError(message)
        self._dry_run = dry_run
        self._owner = "" if dry_run else secrets.token_hex(8)
        self._handover: HandOver | None = None
        self._tally = Tally([])
        self._most = BATCH
        self._started = self._tell_at = time.monotonic()
        budget_ms = None if time_budget is None else milliseconds("time_budget", time_budget)
        self._deadline = None if budget_ms is None else self._started + budget_ms / 1000

    def run(self, rules: list[Rule], counts: tuple[str, ...]) -> Report:
        """Apply the rules to every shard that has something due."""
        self._tally = Tally([0] * len(counts))
        if self._dry_run:
            return self._run(rules, counts)
        return recorded(lambda: self._run(rules, counts), self._client, self._keys, self._name, self._removed(counts))

    def _run(self, rules: list[Rule], counts: tuple[str, ...]) -> Report:
        if not self._dry_run:
            self._handover = HandOver(self.settings, rules[0].script, self._tally, self._ends)
            self._most = 1 if self._handover.hook else BATCH
        confirm_shards(self._client, self._keys, create=False)
        tally = self._tally
        work = [(rule, shard) for rule in rules for shard in self._shards_with_work(rule)]
        expected = tally.due
        tally.due = tally.overdue_ms = 0
        for rule, shard in work:
            self._clean(rule, shard, expected)
        if work:
            self._tell(expected)
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
            completed=tally.completed,
            **self._removed(counts)(),
        )

    def _removed(self, counts: tuple[str, ...]) -> Callable[[], dict[str, int]]:
        return lambda: dict(zip(counts, self._tally.removed, strict=True))

    def _shards_with_work(self, rule: Rule) -> list[int]:
        """Return the shards that have something due by a rule, seen in one round trip."""
        replies = call_all(self._client, [Call(DUE, *self._due_call(rule, shard, 0, 0, "")) for shard in self._shards])
        answers = dict(zip(self._shards, replies, strict=True))
        errors = {shard: answer for shard, answer in answers.items() if isinstance(answer, Exception)}
        for shard, error in errors.items():
            if len(errors) == len(answers) or not _of_data(error):
                raise error
            self._tally.skip(shard, error)
        due = {shard: answer[0] for shard, answer in answers.items() if shard not in errors}
        self._tally.due += sum(due.values())
        return [shard for shard, count in due.items() if count]

    def _clean(self, rule: Rule, shard: int, expected: int) -> None:
        """Clean a shard, and give back its lease whatever happens; a damaged one does not keep the others waiting."""
        try:
            self._work_through(rule, shard, expected)
        except BaseException as error:
            self._release(shard)
            if not _of_data(error):
                raise
            self._tally.skip(shard, error)

    def _work_through(self, rule: Rule, shard: int, expected: int) -> None:
        """Go on until nothing is due, the time is over, or another run turns out to be at work.

        Each round trip removes one batch and names the next.
        """
        tally, offset = self._tally, 0
        reply = DUE(self._client, *self._due_call(rule, shard, offset, self._batch(), self._owner))
        while names := reply[2 : 2 + self._most]:
            handed: dict[bytes, int] = {}
            if self._handover and self._handover.archive:
                epoch, slices = self._epoch(shard), self._read(rule, shard, names)  # in this order
                handed = self._handover.keep(shard, names, slices, epoch=epoch, run=self._owner)
            # Of a dry run nothing moves, and a refused channel stays where it is, too: turn the page.
            offset += len(names) if self._dry_run else len(tally.refused.intersection(names))
            names = [name for name in names if name not in tally.refused]
            ids = [handed[name] for name in names if handed]
            removal = Call(rule.script, *self._call(rule, shard, names, self._mode(), ids))
            following = Call(DUE, *self._due_call(rule, shard, offset, self._batch(), self._owner))
            removed, reply = call_all(self._client, [removal, following])
            raise_first([removed])
            if not removed:
                self._stop(shard)
                return
            self._account(names, *removed)
            raise_first([reply])
            if time.monotonic() >= self._tell_at:
                self._tell(expected)
        self._note_rest(shard, reply, offset)

    def _note_rest(self, shard: int, reply: list[Any], offset: int) -> None:
        """Note what is left in a shard, or that another run is at work there."""
        tally, due, overdue_ms = self._tally, *reply[:2]
        if due < 0:
            tally.busy.add(shard)
            return
        left = max(0, due - offset) if self._dry_run else due  # of a dry run's page, what has gone meanwhile
        tally.due += left
        tally.overdue_ms = max(tally.overdue_ms, overdue_ms if left else 0)

    def _read(self, rule: Rule, shard: int, names: list[bytes]) -> list[Any]:
        """Return what would go of each channel."""
        _, slices, errors = rule.script(self._client, *self._call(rule, shard, names, "read"))
        self._refuse(names, errors)
        return list(slices)

    def _epoch(self, shard: int) -> str:
        """Return the epoch of a shard's ids, made as a check makes it where there is none."""
        epoch = EPOCH(self._client, self._keys.of_shard(shard, "meta"), (secrets.token_hex(6),))
        return str(epoch, "ascii")

    def _account(self, names: list[bytes], counts: list[int], of_names: list[Any], errors: list[Any]) -> None:
        """Count what a batch removed, and tell the hook.

        What has gone must be told, so a slow hook gets one channel at a time, and a quick one soon a whole batch.
        """
        self._refuse(names, errors)
        self._tally.add(names, counts, of_names if self._dry_run else [])
        if not self._dry_run:
            self._tally.watch(names, counts)
        if self._handover and self._handover.hook:
            slow = self._handover.announce(names, of_names)
            self._most = 1 if slow else min(2 * self._most, BATCH)

    def _refuse(self, names: list[bytes], errors: list[Any]) -> None:
        """Note the channels that a script could do nothing with, given as pairs of a place from 1 and an error."""
        for place, error in zip(errors[::2], errors[1::2], strict=True):
            self._tally.refuse(names[place - 1], decode_name(error))

    def _stop(self, shard: int) -> None:
        """Leave a shard whose lease was lost, with what was handed over and not removed: it is handed over again."""
        self._release(shard)  # the script that names the next batch may have got it anew
        self._tally.busy.add(shard)
        lease = f"the lease was lost: it lapses {LEASE_MS // 1000} s after the last call to Redis"
        self._tally.fail(f"shard {shard}", f"{lease}, one call of CHAT_ARCHIVE or CHAT_ON_EXPIRE must take less")

    def _release(self, shard: int) -> None:
        if self._owner:
            with suppress(RedisError, RedisClusterException):  # it lapses by itself
                RELEASE(self._client, self._keys.of_shard(shard, self._lease), (self._owner,))

    @property
    def _lease(self) -> str:
        return f"lease:{self._name}"

    def _mode(self) -> str:
        return "count" if self._dry_run else "tell" if self._handover and self._handover.hook else "remove"

    def _batch(self) -> int:
        """Return how many candidates to ask for."""
        return 0 if self._is_over() else self._most

    def _call(self, rule: Rule, shard: int, names: list[bytes], mode: str, handed: Iterable[int] = ()) -> Any:
        keys = self._keys.of_shard(shard, *rule.shard_keys, self._lease)
        keys += self._keys.of_channels(shard, names, *rule.channel_keys)
        return keys, (self._owner, LEASE_MS, *rule.args, mode, *rule.budget, *names, *handed)

    def _due_call(self, rule: Rule, shard: int, offset: int, batch: int, owner: str) -> tuple[Any, Any]:
        keys = self._keys.of_shard(shard, rule.index, self._lease, "meta")
        mark = f"done:{rule.index}" if rule.mark and not self._dry_run else ""
        return keys, (rule.by, rule.limit, offset, batch, owner, LEASE_MS, mark)

    def _tell(self, expected: int) -> None:
        """Report progress; not at every batch, a listener may cost more than that."""
        self._tell_at = time.monotonic() + PROGRESS_EVERY
        if self._progress:
            self._progress(self._tally.handled, max(expected, self._tally.handled))

    def _is_over(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline


def _of_data(error: BaseException) -> bool:
    """Whether what a shard holds is to blame, as a key of another type: the other shards may be fine."""
    return type(error) is ResponseError  # what the server itself is to blame for has classes of its own


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
