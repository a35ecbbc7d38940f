"""The rules of cleaning: one table for sweeps, dry runs, stats and metrics.

A rule compares one index of every shard with one limit. A channel that the index names is only a candidate: the scripts
look at it again.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from chat.store.arguments import at_least, milliseconds
from tasks.cleaning import scripts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chat.store.scripts import Script
    from tasks.settings import Settings

__all__ = ["RULES", "Action", "Limits", "Order", "Rule", "rules_of"]


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
        """Return the limits of the settings, or of the call where it overrides them: seconds and messages.

        Raises:
            InvalidArgumentError: a limit that is not allowed.
        """
        limits = {}
        for name in (item.name for item in fields(cls)):
            given = (overrides or {}).get(name)
            value = getattr(settings, name) if given is None else given
            limits[name] = at_least(0, name, value) if name == "backlog" else milliseconds(name, value)
        return cls(**limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The scripts that ask an index what is due.

    Attributes:
        due: counts and names what is due; only reads.
        survey: counts what is due when a sweep begins.
        next: names the next batch for the run that holds the lease, and gives the lease back where nothing is due.
    """

    due: Script
    survey: Script
    next: Script


BY_AGE = Order(due=scripts.DUE_BY_AGE, survey=scripts.SURVEY_BY_AGE, next=scripts.NEXT_BY_AGE)
BY_SIZE = Order(due=scripts.DUE_BY_SIZE, survey=scripts.SURVEY_BY_SIZE, next=scripts.NEXT_BY_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A script that takes candidates.

    Attributes:
        script: the script.
        budget: messages or clients that one call removes at most, however many are due: under 1 ms of the server's
            time. Empty where the number of candidates is limit enough.
    """

    script: Script
    budget: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A row of the table.

    Attributes:
        sweep: name of the sweep that the rule belongs to.
        index: key of the shard that names the candidates.
        order: scripts that read the index.
        limit: name of the limit that the index is compared with.
        optional: whether 0 switches the rule off.
        shard_keys: keys of the shard that the actions take: all that the removal needs, as a look tells whether
            one of them is damaged.
        channel_keys: keys of each channel that the actions take.
        action_limits: names of the limits that the actions take.
        counts: names of the numbers that the actions return.
        peek: action that counts what would be removed; only reads.
        read: action that returns the messages that would be removed, for the archive; only reads. None where there
            are none.
        remove: action that removes, if the run holds the lease.
        announced: whether ``CHAT_ON_EXPIRE`` is told what was removed.
        stat: field of `ShardStats` that counts the channels due.
    """

    sweep: str
    index: str
    order: Order
    limit: str
    optional: bool = False
    shard_keys: tuple[str, ...]
    channel_keys: tuple[str, ...] = ("log",)
    action_limits: tuple[str, ...]
    counts: tuple[str, ...]
    peek: Action
    read: Action | None = None
    remove: Action
    announced: bool = False
    stat: str

    @property
    def mark(self) -> str:
        """The field of a shard's ``meta`` that holds when nothing was due."""
        return f"done:{self.index}"

    def counted(self, counts: Iterable[int]) -> dict[str, int]:
        """Return the counts of a script by their names."""
        return dict(zip(self.counts, counts, strict=False))


def _trim(peek: Script, read: Script, trim: Script) -> dict[str, Any]:
    """Return what the two rules of the backlog have in common."""
    return {
        "sweep": "clean_backlog",
        "shard_keys": ("sizes", "heads", "trimmed"),
        "action_limits": ("backlog", "message_timeout"),
        "counts": ("messages",),
        "peek": Action(script=peek),
        "read": Action(script=read),
        "remove": Action(script=trim, budget=(10_000,)),
    }


RULES = (
    Rule(
        sweep="clean_channels",
        index="updated",
        order=BY_AGE,
        limit="channel_timeout",
        shard_keys=("updated", "sizes", "heads", "polled", "trimmed"),
        action_limits=("channel_timeout",),
        counts=("channels", "messages"),
        peek=Action(script=scripts.PEEK_CHANNELS),
        read=Action(script=scripts.READ_CHANNELS),
        remove=Action(script=scripts.REMOVE_CHANNELS),
        announced=True,
        stat="idle",
    ),
    Rule(
        index="sizes",
        order=BY_SIZE,
        limit="backlog",
        stat="over_backlog",
        **_trim(scripts.PEEK_BACKLOGS, scripts.READ_BACKLOGS, scripts.TRIM_BACKLOGS),
    ),
    Rule(
        index="heads",
        order=BY_AGE,
        limit="message_timeout",
        optional=True,
        stat="too_old",
        **_trim(scripts.PEEK_OLD, scripts.READ_OLD, scripts.TRIM_OLD),
    ),
    Rule(
        sweep="clean_clients",
        index="polled",
        order=BY_AGE,
        limit="client_timeout",
        shard_keys=("updated", "polled", "trimmed"),
        channel_keys=("log", "seen", "read"),
        action_limits=("client_timeout",),
        counts=("clients",),
        peek=Action(script=scripts.PEEK_CLIENTS),
        remove=Action(script=scripts.FORGET_CLIENTS, budget=(500,)),
        announced=True,
        stat="expired",
    ),
)


def rules_of(limits: Limits, sweep: str = "") -> list[Rule]:
    """Return the rules that the limits leave switched on, of one sweep or of all."""
    return [rule for rule in RULES if sweep in {"", rule.sweep} and (getattr(limits, rule.limit) or not rule.optional)]
