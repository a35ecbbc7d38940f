"""The stats: sizes of the chat and progress of cleaning, in a few round trips, however many channels there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from chat.store.keys import Keys, decode_name
from chat.store.nodes import Command, nodes, run_all
from chat.store.scripts import call_all
from chat.store.shards import confirm_shards
from tasks.cleaning import SWEEPS
from tasks.cleaning.calls import Calls
from tasks.cleaning.record import LastRun, last_run, parse_ms
from tasks.cleaning.rules import RULES, Limits, rules_of
from tasks.cleaning.scripts import is_of_data
from tasks.settings import daemon_settings
from tasks.stats.values import ShardStats, Stats, SweepStats

if TYPE_CHECKING:
    from chat import Settings
    from chat.store.nodes import Client
    from tasks.cleaning.rules import Rule

__all__ = ["read_stats"]

# By the rule's `stat`: how many channels are due in each shard, and how many ms the longest is overdue.
Found = dict[str, tuple[list[int], list[int]]]

SUMS = ("channels", "messages", "clients", "sent", "removed", "restored")
ACCOUNT = ("clients", "sent", "removed", "restored", "adjusted")  # fields of `meta`, see chat/store/keys.py


def read_stats(client: Client, *, settings: Settings | None = None) -> Stats:
    """Return the state of the chat. Nothing is written.

    The counts of messages and clients are kept, not counted: after a key was lost they are approximate, until their
    shard has been empty.

    Args:
        client: a redis-py client.
        settings: prefix, shards, limits and schedules; None for the defaults.

    Raises:
        ShardsMismatchError: the data is stored in another number of shards.
        redis.exceptions.ConnectionError: Redis cannot be reached.
        redis.exceptions.ResponseError: a key is of another type; its name is in the message.
    """
    settings = daemon_settings(settings)
    keys, limits = Keys(settings.prefix, settings.shards), Limits.of(settings)
    rules = rules_of(limits)
    confirm_shards(client, keys, create=False)
    record, channels, accounts = _stored(client, keys, rules)
    now_ms, memory_used, memory_limit = _servers(client)
    found = _due(client, keys, limits, rules)
    shards = tuple(
        _shard(shard, channels[shard], accounts[shard], {stat: due[shard] for stat, (due, _) in found.items()})
        for shard in range(settings.shards)
    )
    return Stats(
        **{name: sum(getattr(shard, name) for shard in shards) for name in SUMS},
        sweeps={
            sweep: _sweep(
                [rule for rule in rules if rule.sweep == sweep],
                found,
                accounts,
                last_run(record, sweep),
                now_ms=now_ms,
                interval=settings.interval(sweep),
            )
            for sweep in SWEEPS
        },
        memory_used=memory_used,
        memory_limit=memory_limit,
        shards=shards,
    )


def _stored(client: Client, keys: Keys, rules: list[Rule]) -> tuple[Any, list[int], list[dict[str, Any]]]:
    """Return the record of the runs; and of each shard the number of its channels, and its account and marks."""
    fields = [*ACCOUNT, *(rule.mark for rule in rules)]
    indexes, metas = zip(*(keys.of_shard(shard, "updated", "meta") for shard in range(keys.shards)), strict=True)
    commands = [
        Command(keys.runs, ("HGETALL", keys.runs)),
        *(Command(index, ("ZCARD", index)) for index in indexes),
        *(Command(meta, ("HMGET", meta, *fields)) for meta in metas),
    ]
    replies = run_all(client, commands)
    for command, reply in zip(commands, replies, strict=True):
        _confirm(command.key, reply)
    accounts = [dict(zip(fields, values, strict=True)) for values in replies[1 + keys.shards :]]
    return replies[0], replies[1 : 1 + keys.shards], accounts


def _servers(client: Client) -> tuple[int, int, int]:
    """Return the time in ms, and the memory used and allowed in bytes, of the server that has least room."""
    seen = []
    for node in nodes(client):
        pipeline: Any = node.pipeline(transaction=False)
        pipeline.time()
        pipeline.info("memory")
        (seconds, microseconds), memory = pipeline.execute()
        used, limit = memory.get("used_memory", 0), memory.get("maxmemory", 0)
        seen.append((used / limit if limit else 0, seconds * 1000 + microseconds // 1000, used, limit))
    _, now_ms, used, limit = max(seen, key=lambda server: (server[0], server[2]))
    return now_ms, used, limit


def _due(client: Client, keys: Keys, limits: Limits, rules: list[Rule]) -> Found:
    """Return how many channels are due by each rule in each shard, and how many ms the longest is overdue."""
    calls = [Calls(rule, limits, keys, shard).due(0, 0) for rule in rules for shard in range(keys.shards)]
    replies = call_all(client, calls)
    for (_, (index, *_), _), reply in zip(calls, replies, strict=True):
        _confirm(index, reply)
    of_rules = [replies[start : start + keys.shards] for start in range(0, len(replies), keys.shards)]
    return {
        rule.stat: ([due for due, _ in of_rule], [overdue_ms for _, overdue_ms in of_rule])
        for rule, of_rule in zip(rules, of_rules, strict=True)
    }


def _confirm(key: bytes, reply: Any) -> None:
    """Raise the reply where it is an error, with the name of the key where that is of another type."""
    if is_of_data(reply):
        message = f"{decode_name(key)} is damaged, must be as the chat wrote it, or deleted: {reply}"
        raise ResponseError(message)
    if isinstance(reply, Exception):
        raise reply


def _shard(shard: int, channels: int, account: dict[str, Any], due: dict[str, int]) -> ShardStats:
    clients, sent, removed, restored, adjusted = (int(account[name] or 0) for name in ACCOUNT)
    return ShardStats(
        shard=shard,
        channels=channels,
        messages=max(0, sent - removed + restored + adjusted),
        clients=max(0, clients),
        sent=sent,
        removed=removed,
        restored=restored,
        **dict.fromkeys((rule.stat for rule in RULES), 0) | due,
    )


def _sweep(
    rules: list[Rule],
    found: Found,
    accounts: list[dict[str, Any]],
    last: LastRun,
    *,
    now_ms: int,
    interval: float | None,
) -> SweepStats:
    done = [parse_ms(account[rule.mark], now_ms) for account in accounts for rule in rules]
    oldest = min(then_ms for then_ms in done if then_ms is not None) if None not in done else None
    return SweepStats(
        due=sum(sum(found[rule.stat][0]) for rule in rules),
        overdue=max(max(found[rule.stat][1]) for rule in rules) / 1000,
        interval=interval,
        success_age=_age(now_ms, oldest),
        started_age=_age(now_ms, last.started_ms),
        ended_age=_age(now_ms, last.ended_ms),
        failed_age=_age(now_ms, last.failed_ms),
        last=last,
    )


def _age(now_ms: int, then_ms: int | None) -> float | None:
    return None if then_ms is None else max(0, now_ms - then_ms) / 1000
