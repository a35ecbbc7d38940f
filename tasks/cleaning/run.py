"""One run of a sweep: the shards that have work, the time it may take, its progress and its report."""

from __future__ import annotations

import secrets
import time
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from chat import InvalidArgumentError
from chat.settings import Settings as ChatSettings
from chat.store.arguments import at_least, milliseconds, shown
from chat.store.connect import confirm_client
from chat.store.keys import Keys, decode_name
from chat.store.scripts import call_all
from chat.store.shards import confirm_shards
from tasks.cleaning.calls import BATCH, Calls, Lease
from tasks.cleaning.hand_over import HandOver
from tasks.cleaning.preview import preview
from tasks.cleaning.record import recorded
from tasks.cleaning.removal import Removal
from tasks.cleaning.report import Report
from tasks.cleaning.rules import Limits, rules_of
from tasks.cleaning.scripts import is_of_data
from tasks.cleaning.tally import Tally
from tasks.settings import daemon_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from chat.store.nodes import Client
    from tasks.cleaning.rules import Rule

__all__ = ["Run"]

PROGRESS_EVERY = 0.5  # seconds

_keys_of = cache(Keys)  # the keys of all shards are named once, not by each run


class Run:
    """One run of a sweep over some shards.

    Args:
        sweep: name of the sweep.
        client: client of the chat's Redis.
        overrides: limits of this run by name, None for those of the settings.
        **options: see `SweepOptions`.

    Attributes:
        client: client of the chat's Redis.
        lease: the right to remove in a shard.
        tally: what the run has counted so far.
        batch: candidates that a call asks for.
    """

    def __init__(
        self,
        sweep: str,
        client: Client,
        overrides: Mapping[str, Any],
        *,
        shards: Iterable[int] | None = None,
        dry_run: bool = False,
        time_budget: float | None = None,
        progress: Callable[[int, int], object] | None = None,
        settings: ChatSettings | None = None,
        ends: tuple[type[Exception], ...] = (),
    ) -> None:
        confirm_client(client, use="redis.Redis.from_url(url)")
        if not (settings is None or isinstance(settings, ChatSettings)):
            message = f"settings are a {type(settings).__name__}, must be Settings(...), or None for the defaults"
            raise InvalidArgumentError(message)
        if not isinstance(dry_run, bool):
            message = f"dry_run is {shown(dry_run)}, must be true or false"
            raise InvalidArgumentError(message)
        self._settings = daemon_settings(settings)
        self._limits, self._defaults = Limits.of(self._settings, overrides), Limits.of(self._settings)
        self._rules = rules_of(self._limits, sweep)
        self._keys = _keys_of(self._settings.prefix, self._settings.shards)
        self._shards = _chosen(shards, self._settings.shards)
        self._seconds = None if time_budget is None else milliseconds("time_budget", time_budget) / 1000
        self._dry_run, self._progress, self._ends = dry_run, progress, ends
        self.client, self.lease = client, Lease(sweep, secrets.token_hex(8))
        self.tally, self.batch, self._expected = Tally(), BATCH, 0
        self._started = self._tell_at = time.monotonic()

    def report(self) -> Report:
        """Apply the rules of the sweep to every shard where something is due, and return the report."""
        if self._dry_run:
            return self._apply(partial(preview, self))
        return recorded(self._remove, self.client, self._keys, self.lease.sweep, self.tally.removed)

    def mark(self, rule: Rule) -> str:
        """Return the rule's mark; empty if this run's limit is laxer than the settings': it proves nothing then."""
        limit, default = getattr(self._limits, rule.limit), getattr(self._defaults, rule.limit)
        return rule.mark if limit <= default else ""

    def candidates(self) -> int:
        """Return how many candidates to ask for: none when the time is over."""
        return 0 if self._seconds is not None and self._elapsed >= self._seconds else self.batch

    def tell(self, *, at_end: bool = False) -> None:
        """Report progress; not at every batch, as a listener may cost more than that."""
        if self._progress and (at_end or time.monotonic() >= self._tell_at):
            self._tell_at = time.monotonic() + PROGRESS_EVERY
            self._progress(self.tally.handled, max(self._expected, self.tally.handled))

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _remove(self) -> Report:
        destinations = HandOver(self._settings, self._rules, self, self._ends)
        return self._apply(lambda calls: Removal(self, calls, destinations).run())

    def _apply(self, clean: Callable[[Calls], object]) -> Report:
        confirm_shards(self.client, self._keys, create=False)
        work = [calls for rule in self._rules for calls in self._with_work(rule)]
        for calls in work:
            try:
                clean(calls)
            except ResponseError as error:
                if not is_of_data(error):
                    raise
                self.tally.skip(calls.shard, error)  # the other shards may be fine
        if work:
            self.tell(at_end=True)
        tally = self.tally
        return Report(
            sweep=self.lease.sweep,
            dry_run=self._dry_run,
            examples=tuple((decode_name(name), count) for name, count in tally.examples.items()),
            due=tally.due,
            overdue=tally.overdue_ms / 1000,
            busy=len(tally.busy),
            seconds=self._elapsed,
            archived=tally.archived,
            error=tally.error,
            completed=tally.completed,
            **tally.removed,
        )

    def _with_work(self, rule: Rule) -> list[Calls]:
        """Return the calls of a rule in each shard that has something due by it, seen in one round trip."""
        mark = self.mark(rule)
        of_shards = [Calls(rule, self._limits, self._keys, shard) for shard in self._shards]
        looks = [calls.due(0, 0) if self._dry_run else calls.survey(mark) for calls in of_shards]
        replies = call_all(self.client, looks)
        errors = [reply for reply in replies if isinstance(reply, Exception)]
        work = []
        for calls, reply in zip(of_shards, replies, strict=True):
            if not isinstance(reply, Exception):
                self._expected += reply[0]
                work += [calls] if reply[0] else []
            elif len(errors) == len(replies) or not is_of_data(reply):
                raise reply
            else:
                self.tally.skip(calls.shard, reply)
        return work


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
