"""What is due, and what is done about it: the one table that sweeps, dry runs, stats and metrics go by.

A rule holds one index of every shard against one limit. What its index names is only a candidate: the scripts look
again at each channel.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from chat.store.arguments import at_least, milliseconds
from tasks.cleaning import scripts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chat.store.keys import Keys
    from chat.store.scripts import Call, Script
    from tasks.settings import Settings

__all__ = ["RULES", "SWEEPS", "Action", "Limits", "Order", "Rule", "rules_of"]

LEASE_MS = 30_000  # a shard is free again this long after the last sign of life of its sweep


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a run, in the units of the scripts.

    Attributes:
        channel_timeout: ms without a message until a channel is idle.
        backlog: messages that a channel keeps.
        message_timeout: ms until a message is too old, 0 for never.
        client_timeout: ms without a check until a client is expired.
    """

    channel_timeout: int
    backlog: int
    message_timeout: int
    client_timeout: int

    @classmethod
    def of(cls, settings: Settings, overrides: Mapping[str, Any] | None = None) -> Self:
        """Return the limits of the settings, with those that a call overrides: all in seconds or messages.

        Raises:
            InvalidArgumentError: a limit that is not allowed.
        """
        given = {name: value for name, value in (overrides or {}).items() if value is not None}
        limits = {}
        for name in (item.name for item in fields(cls)):
            value = given.get(name, getattr(settings, name))
            limits[name] = at_least(0, name, value) if name == "backlog" else milliseconds(name, value)
        return cls(**limits)

    def values(self, names: Iterable[str]) -> tuple[int, ...]:
        """Return the limits of these names."""
        return tuple(getattr(self, name) for name in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How an index is asked for what is due.

    Attributes:
        due: counts and names what is due; only reads.
        survey: counts what is due when a sweep begins.
        next: names the next batch of a sweep, which holds the shard's lease.
    """

    due: Script
    survey: Script
    next: Script


BY_AGE = Order(due=scripts.DUE_BY_AGE, survey=scripts.SURVEY_BY_AGE, next=scripts.NEXT_BY_AGE)
BY_SIZE = Order(due=scripts.DUE_BY_SIZE, survey=scripts.SURVEY_BY_SIZE, next=scripts.NEXT_BY_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What is done with candidates: a script, and what it takes. The names of the channels follow.

    Attributes:
        script: that takes it.
        shard_keys: the shard's keys.
        channel_keys: the keys of each channel.
        limits: the limits, by their names.
        budget: how much the call may remove at most, where it has a bound.
    """

    script: Script
    shard_keys: tuple[str, ...] = ()
    channel_keys: tuple[str, ...]
    limits: tuple[str, ...]
    budget: tuple[int, ...] = ()

    def call(
        self, keys: Keys, shard: int, names: list[bytes], limits: Limits, *, lease: tuple[str, str] | None = None,
        ids: Iterable[int] = (),
    ) -> Call:
        """Return the call for some channels of a shard; `lease` is its key and its owner, `ids` what was archived."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row of the table.

    Attributes:
        sweep: it belongs to.
        index: that names the candidates.
        order: of that index.
        limit: it is held against.
        figure: its name in the stats of a shard.
        peek: counts what would go; only reads.
        read: returns the messages that would go, for the archive; only reads. None where no messages go.
        remove: removes; it holds the shard's lease.
        counts: what the report of the sweep counts, in the order of the scripts' counts.
        is_optional: a limit of 0 is no limit.
        is_announced: ``CHAT_ON_EXPIRE`` is told what went.
    """

    sweep: str
    index: str
    order: Order
    limit: str
    figure: str
    peek: Action
    read: Action | None = None
    remove: Action
    counts: tuple[str, ...]
    is_optional: bool = False
    is_announced: bool = False
