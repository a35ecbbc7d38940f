"""The three sweeps that keep a chat small. No Celery here: a client in, a report out.

A sweep asks each shard's index for candidates, in one round trip for all shards; where nothing is due it ends there.
Elsewhere it goes through the shard in batches: it names candidates and holds the shard's lease (``next.lua``), then
one script looks again at each of them and removes. A message or a check that arrives in between wins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from tasks.cleaning.report import Report
from tasks.cleaning.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Unpack

    from chat import Settings
    from chat.store.nodes import Client

__all__ = ["SWEEPS", "Report", "clean_backlog", "clean_channels", "clean_clients"]


class SweepOptions(TypedDict, total=False):
    """The options of every sweep.

    Attributes:
        shards: numbers of the shards to clean, None for all.
        dry_run: whether to count only what would be removed. Redis is not written to, so a user of Redis that may only
            read is enough.
        time_budget: seconds after which the sweep stops and reports what is left, None for no end.
        progress: function that is called twice a second, and at the end, with the number of candidates handled and due.
        settings: prefix, shards and defaults, of `chat.Settings` or `tasks.settings.Settings`; None for all defaults.
            Only the latter have an archive and a hook.
        ends: exceptions that end the run also when a function of ``CHAT_ARCHIVE`` or ``CHAT_ON_EXPIRE`` raises them,
            such as a time limit; any other is noted in the report.
    """

    shards: Iterable[int] | None
    dry_run: bool
    time_budget: float | None
    progress: Callable[[int, int], object] | None
    settings: Settings | None
    ends: tuple[type[Exception], ...]


def clean_channels(client: Client, *, channel_timeout: float | None = None, **options: Unpack[SweepOptions]) -> Report:
    """Remove the channels nobody sent to for `channel_timeout` seconds, longest idle first.

    Clients that are still connected to one keep their position and get the messages sent after it begins again.

    Args:
        client: a redis-py client.
        channel_timeout: seconds, 0 for every channel; None for the settings'.
        **options: see `SweepOptions`.

    Raises:
        InvalidArgumentError: a value that is not allowed; nothing was removed.
        ShardsMismatchError: the data is stored in another number of shards; nothing was removed.
        redis.exceptions.ConnectionError: Redis cannot be reached; the next run goes on.
    """
    return Run("clean_channels", client, {"channel_timeout": channel_timeout}, **options).report()


def clean_backlog(
    client: Client,
    *,
    backlog: int | None = None,
    message_timeout: float | None = None,
    **options: Unpack[SweepOptions],
) -> Report:
    """Keep each channel's newest `backlog` messages, and none older than `message_timeout`; fullest first.

    Clients that had not read a removed message see it in ``Check.missed``.

    Args:
        client: a redis-py client.
        backlog: messages a channel keeps, 0 or more; None for the settings'.
        message_timeout: seconds, 0 for no age limit; None for the settings'.
        **options: see `SweepOptions`; errors are those of `clean_channels`.
    """
    overrides = {"backlog": backlog, "message_timeout": message_timeout}
    return Run("clean_backlog", client, overrides, **options).report()


def clean_clients(client: Client, *, client_timeout: float | None = None, **options: Unpack[SweepOptions]) -> Report:
    """Forget the clients that did not check for `client_timeout` seconds, channel by channel.

    With its last client goes what was left of a channel that had been removed.

    Args:
        client: a redis-py client.
        client_timeout: seconds, 0 for every client; None for the settings'.
        **options: see `SweepOptions`; errors are those of `clean_channels`.
    """
    return Run("clean_clients", client, {"client_timeout": client_timeout}, **options).report()


SWEEPS: dict[str, Callable[..., Report]] = {
    "clean_channels": clean_channels,
    "clean_backlog": clean_backlog,
    "clean_clients": clean_clients,
}
