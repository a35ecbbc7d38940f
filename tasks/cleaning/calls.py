"""The calls that one rule makes in one shard, with the keys and arguments that its scripts take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from chat.store.scripts import Call
from tasks.cleaning.scripts import RELEASE, TAKE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chat.store.keys import Keys
    from chat.store.scripts import Script
    from tasks.cleaning.rules import Action, Limits, Rule

__all__ = ["BATCH", "LEASE_MS", "Calls", "Lease"]

# Candidates a call, under 0.5 ms of the server's time: senders beside a sweep wait for as long.
BATCH = 40
LEASE_MS = 30_000  # a shard is free again this long after the last call of its sweep


class Lease(NamedTuple):
    """The right of one run of a sweep to remove in a shard."""

    sweep: str
    owner: str

    @property
    def name(self) -> str:
        """Name of the shard's key that holds the owner."""
        return f"lease:{self.sweep}"


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls of a rule in a shard."""

    rule: Rule
    limits: Limits
    keys: Keys
    shard: int

    def due(self, offset: int, batch: int) -> Call:
        """Return the call that counts the channels due and names a page of them; it only reads."""
        return Call(self.rule.order.due, self._of_shard(self.rule.index), (self._limit, offset, batch))

    def survey(self, mark: str) -> Call:
        """Return the call that counts the channels due, and sets the mark where there are none."""
        return Call(self.rule.order.survey, self._of_shard(self.rule.index, "meta"), (self._limit, mark))

    def next(self, lease: Lease, offset: int, batch: int, mark: str) -> Call:
        """Return the call that names the next batch, or gives back the lease where nothing is due."""
        args = (lease.owner, LEASE_MS, self._limit, offset, batch, mark)
        return Call(self.rule.order.next, self._of_shard(lease.name, "meta", self.rule.index), args)

    def take(self, lease: Lease) -> Call:
        """Return the call that takes the lease."""
        return Call(TAKE, self._of_shard(lease.name), (lease.owner, LEASE_MS))

    def release(self, lease: Lease) -> Call:
        """Return the call that gives back the lease."""
        return Call(RELEASE, self._of_shard(lease.name), (lease.owner,))

    def look(self, action: Action, names: list[bytes]) -> Call:
        """Return the call of an action of the rule that only reads."""
        script, keys, args = self._of_channels(action, names)
        return Call(script, self._of_shard("meta") + keys, args)

    def remove(self, lease: Lease, names: list[bytes], ids: Iterable[int]) -> Call:
        """Return the call that removes; with an archive, of each channel only up to the id that the archive has."""
        script, keys, args = self._of_channels(self.rule.remove, names)
        return Call(script, self._of_shard(lease.name, "meta") + keys, (lease.owner, LEASE_MS, *args, *ids))

    def _of_channels(self, action: Action, names: list[bytes]) -> tuple[Script, tuple[bytes, ...], tuple[Any, ...]]:
        keys = self._of_shard(*self.rule.shard_keys) + self.keys.of_channels(self.shard, names, *self.rule.channel_keys)
        limits = (getattr(self.limits, name) for name in self.rule.action_limits)
        return action.script, keys, (*limits, *action.budget, *names)

    def _of_shard(self, *names: str) -> tuple[bytes, ...]:
        return self.keys.of_shard(self.shard, *names)

    @property
    def _limit(self) -> Any:
        return getattr(self.limits, self.rule.limit)
