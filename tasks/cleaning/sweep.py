"""A sweep: which shards have work, what is done there, and the report of it."""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from chat import InvalidArgumentError
from chat.settings import Settings as ChatSettings
from chat.store.arguments import at_least, milliseconds, shown
from chat.store.connect import confirm_client
from chat.store.keys import Keys, decode_name
from chat.store.layout import confirm_shards
from chat.store.scripts import call_all
from tasks.cleaning.calls import Calls, Lease
from tasks.cleaning.hooks import Hooks
from tasks.cleaning.job import Job
from tasks.cleaning.preview import preview
from tasks.cleaning.removal import Removal
from tasks.cleaning.report import Report
from tasks.cleaning.rules import Limits, rules_of
from tasks.cleaning.runs import recorded
from tasks.settings import daemon_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from chat.store.nodes import Client
    from tasks.cleaning.rules import Rule

__all__ = ["Sweep"]


class Sweep:
    """One run of one sweep over some shards.

    Args:
        name: name of the sweep.
        client: client of the chat's Redis.
        overrides: limits of this run by name, None for those of the settings.
        shards: as all that follows, see `SweepOptions`.
    """

    def __init__(
        self,
        name: str,
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
        self._name, self._dry_run, self._ends = name, dry_run, ends
        self._limits, self._defaults = Limits.of(self._settings, overrides), Limits.of(self._settings)
        self._rules = rules_of(self._limits, name)
        self._keys = Keys(self._settings.prefix, self._settings.shards)
        self._shards = _chosen(shards, self._settings.shards)
        self._lease = Lease(name, secrets.token_hex(8))
        seconds = None if time_budget is None else milliseconds("time_budget", time_budget) / 1000
        self._job = Job(client, seconds, progress)

    def run(self) -> Report:
        """Apply the rules of the sweep to every shard where something is due."""
        if self._dry_run:
            return self._run(lambda rule, shard: preview(self._job, self._calls(rule, shard)))
        return recorded(self._remove, self._job.client, self._keys, self._name, self._removed)

    def _remove(self) -> Report:
        return self._run(partial(self._clean, Hooks(self._settings, self._rules, self._job, self._ends)))

    def _run(self, clean: Callable[[Rule, int], object]) -> Report:
        job, tally = self._job, self._job.tally
        confirm_shards(job.client, self._keys, create=False)
        work = [(rule, shard) for rule in self._rules for shard in self._shards_with_work(rule)]
        for rule, shard in work:
            try:
                clean(rule, shard)
            except ResponseError as error:
                if not _of_data(error):
                    raise
                tally.skip(shard, error)  # the other shards may be fine
        if work:
            job.tell(at_end=True)
        return self._report()

    def _report(self) -> Report:
        tally = self._job.tally
        return Report(
            sweep=self._name,
            dry_run=self._dry_run,
            examples=tuple((decode_name(name), count) for name, count in tally.examples.items()),
            due=tally.due,
            overdue=tally.overdue_ms / 1000,
            busy=len(tally.busy),
            seconds=self._job.elapsed,
            archived=tally.archived,
            error=tally.error,
            completed=tally.completed,
            **self._removed(),
        )

    def _removed(self) -> dict[str, int]:
        return dict(self._job.tally.removed)

    def _shards_with_work(self, rule: Rule) -> list[int]:
        """Return the shards that have something due by a rule, seen in one round trip."""
        calls = [self._calls(rule, shard) for shard in self._shards]
        looks = [one.due(0, 0) if self._dry_run else one.survey(self._mark(rule)) for one in calls]
        replies = call_all(self._job.client, looks)
        errors = [reply for reply in replies if isinstance(reply, Exception)]
        due = {}
        for shard, reply in zip(self._shards, replies, strict=True):
            if not isinstance(reply, Exception):
                due[shard] = reply[0]
            elif len(errors) == len(replies) or not _of_data(reply):
                raise reply
            else:
                self._job.tally.skip(shard, reply)
        self._job.expected += sum(due.values())
        return [shard for shard, count in due.items() if count]

    def _clean(self, hooks: Hooks, rule: Rule, shard: int) -> None:
        Removal(self._job, self._calls(rule, shard), hooks, self._lease, self._mark(rule)).run()

    def _calls(self, rule: Rule, shard: int) -> Calls:
        return Calls(rule, self._limits, self._keys, shard)

    def _mark(self, rule: Rule) -> str:
        """Return the rule's mark; empty if this run's limit is laxer than the settings': it proves nothing then."""
        limit, default = getattr(self._limits, rule.limit), getattr(self._defaults, rule.limit)
        return rule.mark if limit <= default else ""


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
