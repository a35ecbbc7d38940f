"""The three sweeps that keep a chat small. No Celery here: a client in, a report out.

A sweep asks each shard's due-index for candidates, in one round trip for all shards; where nothing is due it ends
there. Else it works through the shard in batches: name candidates and hold the shard's lease (`due.lua`), then
one script that looks again at each of them and removes. A message or a check that arrives in between wins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chat.store.arguments import at_least, milliseconds
from tasks.cleaning.report import Report
from tasks.cleaning.scripts import FORGET_CLIENTS, REMOVE_CHANNELS, TRIM_BACKLOGS
from tasks.cleaning.sweep import Rule, Sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chat.store.nodes import Client
    from tasks.settings import Settings

__all__ = ["Report", "clean_backlog", "clean_channels", "clean_clients"]

# How much one call may remove of a channel, however much is in it: under 1 ms of the server's time.
DROP_BUDGET = 10_000  # messages
FORGET_BUDGET = 500  # clients

# The keys that each script takes after the channels' own, see chat/store/lua.
REMOVE_KEYS = ("updated", "sizes", "heads", "polled", "trimmed", "meta")
TRIM_KEYS = ("sizes", "heads", "trimmed", "meta")
FORGET_KEYS = ("updated", "polled", "trimmed", "meta")


def clean_channels(
    client: Client,
    *,
    channel_timeout: float | None = None,
    shards: Iterable[int] | None = None,
    dry_run: bool = False,
    time_budget: float | None = None,
    progress: Callable[[int, int], object] | None = None,
    settings: Settings | None = None,
    ends: tuple[type[Exception], ...] = (),
) -> Report:
    """Remove the channels nobody sent to for `channel_timeout` seconds, longest idle first.

    Clients that are still connected to one keep their position and get the messages of its next life.

    Args:
        client: a redis-py client.
        channel_timeout: seconds, 0 for every channel; None for the settings'.
        shards: numbers of the shards to clean, None for all.
        dry_run: the same selection, nothing is changed.
        time_budget: seconds after which the sweep stops, with what is left in its report; None for no end.
        progress: called twice a second, and at the end, with the number of candidates handled and due.
        settings: prefix, shards and defaults; None for ``Settings()``.
        ends: exceptions that end the run also when they are raised in a function of ``CHAT_ARCHIVE`` or
            ``CHAT_ON_EXPIRE``, such as a time limit; any other is noted in the report.

    Raises:
        InvalidArgumentError: a value that is not allowed; nothing was removed.
        ShardsMismatchError: the data lies in another number of shards; nothing was removed.
        redis.exceptions.ConnectionError: Redis cannot be reached; the next run goes on.
    """
    sweep = Sweep("clean_channels", client, settings, shards, time_budget, progress, dry_run=dry_run, ends=ends)
    timeout_ms = milliseconds("channel_timeout", _given(channel_timeout, sweep.settings.channel_timeout))
    args = (timeout_ms,)
    mark = timeout_ms <= milliseconds("channel_timeout", sweep.settings.channel_timeout)
    rule = Rule("updated", "age", timeout_ms, REMOVE_CHANNELS, REMOVE_KEYS, ("log",), args, (), mark)
    return sweep.run([rule], ("channels", "messages"))


def clean_backlog(
    client: Client,
    *,
    backlog: int | None = None,
    message_timeout: float | None = None,
    shards: Iterable[int] | None = None,
    dry_run: bool = False,
    time_budget: float | None = None,
    progress: Callable[[int, int], object] | None = None,
    settings: Settings | None = None,
    ends: tuple[type[Exception], ...] = (),
) -> Report:
    """Keep each channel's newest `backlog` messages, and none older than `message_timeout`; fullest first.

    Clients that had not read a removed message see it in ``Check.missed``.

    Args:
        client: a redis-py client.
        backlog: messages a channel keeps, 0 or more; None for the settings'.
        message_timeout: seconds, 0 for no age limit; None for the settings'.
        shards: as for `clean_channels`, like all that follows.
        dry_run: likewise.
        time_budget: likewise.
        progress: likewise.
        settings: likewise.
        ends: likewise.

    Raises:
        InvalidArgumentError: as for `clean_channels`, like the others.
    """
    sweep = Sweep("clean_backlog", client, settings, shards, time_budget, progress, dry_run=dry_run, ends=ends)
    keep = at_least(0, "backlog", _given(backlog, sweep.settings.backlog))
    timeout_ms = milliseconds("message_timeout", _given(message_timeout, sweep.settings.message_timeout))
    by_size, by_age, budget = (keep, 0), (keep, timeout_ms), (DROP_BUDGET,)
    mark = keep <= sweep.settings.backlog
    rules = [Rule("sizes", "size", keep, TRIM_BACKLOGS, TRIM_KEYS, ("log",), by_size, budget, mark)]
    if timeout_ms:
        mark = timeout_ms <= milliseconds("message_timeout", sweep.settings.message_timeout)
        rules.append(Rule("heads", "age", timeout_ms, TRIM_BACKLOGS, TRIM_KEYS, ("log",), by_age, budget, mark))
    return sweep.run(rules, ("messages",))


def clean_clients(
    client: Client,
    *,
    client_timeout: float | None = None,
    shards: Iterable[int] | None = None,
    dry_run: bool = False,
    time_budget: float | None = None,
    progress: Callable[[int, int], object] | None = None,
    settings: Settings | None = None,
    ends: tuple[type[Exception], ...] = (),
) -> Report:
    """Forget the clients that did not check for `client_timeout` seconds, channel by channel.

    With its last client goes what was left of a channel that had been removed.

    Args:
        client: a redis-py client.
        client_timeout: seconds, 0 for every client; None for the settings'.
        shards: as for `clean_channels`, like all that follows.
        dry_run: likewise.
        time_budget: likewise.
        progress: likewise.
        settings: likewise.
        ends: likewise.

    Raises:
        InvalidArgumentError: as for `clean_channels`, like the others.
    """
    sweep = Sweep("clean_clients", client, settings, shards, time_budget, progress, dry_run=dry_run, ends=ends)
    timeout_ms = milliseconds("client_timeout", _given(client_timeout, sweep.settings.client_timeout))
    budget = (FORGET_BUDGET, "")
    mark = timeout_ms <= milliseconds("client_timeout", sweep.settings.client_timeout)
    kinds = ("log", "seen", "read")
    rule = Rule("polled", "age", timeout_ms, FORGET_CLIENTS, FORGET_KEYS, kinds, (timeout_ms,), budget, mark)
    return sweep.run([rule], ("clients",))


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value
