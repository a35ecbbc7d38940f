"""One server or a cluster of them: several commands in one round trip to each node, wherever their keys lie."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from redis import Redis
from redis import asyncio as redis_asyncio
from redis.client import NEVER_DECODE
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    RedisClusterException,
    RedisError,
    SlotNotCoveredError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["RAW", "AsyncClient", "Client", "Command", "all_of", "each", "each_async", "nodes", "raise_first"]

Client = Redis | RedisCluster
AsyncClient = redis_asyncio.Redis | redis_asyncio.RedisCluster
RAW = {NEVER_DECODE: True}  # bodies and names are bytes to us, whatever the client was told to decode

GONE = (RedisConnectionError, RedisTimeoutError)
# The cluster changes: ask again.
ELSEWHERE = (
    SlotNotCoveredError,
    MovedError,
    AskError,
    TryAgainError,
    ClusterDownError,
)


class Command(NamedTuple):
    """A command, and a key of it that says which node it goes to."""

    key: bytes
    words: tuple[Any, ...]
    options: dict[str, Any] = RAW


def all_of(client: Client, commands: Sequence[Command]) -> list[Any]:
    """Return the replies to some commands, in order.

    Raises:
        redis.exceptions.RedisError: the first error among them; the others were carried out all the same.
    """
    return raise_first(each(client, commands))


def raise_first(replies: list[Any]) -> list[Any]:
    """Return replies as they are, unless one is an error."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def each(client: Client, commands: Sequence[Command]) -> list[Any]:
    """Return the replies to some commands, in order; an error stands in its place.

    redis-py's own pipeline of a cluster refuses scripts. Here each node gets a plain pipeline, side by side; what a
    node does not answer, since slots move or it has died, goes through the cluster's client, which finds out where.
    """
    if not isinstance(client, RedisCluster):
        return _pipelined(client, commands)
    by_node: dict[ClusterNode | None, list[int]] = defaultdict(list)
    for index, command in enumerate(commands):
        by_node[_owner(client, command.key)].append(index)

    def ask(node: ClusterNode | None) -> list[Any]:
        own = [commands[index] for index in by_node[node]]
        replies: list[Any] = [SlotNotCoveredError()] * len(own)
        with suppress(*GONE):
            if node:
                replies = _pipelined(client.get_redis_connection(node), own)
        return _redirected(client, own, replies)

    with ThreadPoolExecutor(max(1, len(by_node))) as pool:
        answers = dict(zip(by_node, pool.map(ask, by_node) if len(by_node) > 1 else map(ask, by_node), strict=True))
    merged: list[Any] = [None] * len(commands)
    for node, indexes in by_node.items():
        for index, reply in zip(indexes, answers[node], strict=True):
            merged[index] = reply
    return merged


async def each_async(client: AsyncClient, commands: Sequence[Command]) -> list[Any]:
    """Do as `each` does, through a client of ``redis.asyncio``, whose pipeline of a cluster takes scripts."""
    pipeline: Any = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command.words, **command.options)
    if not isinstance(client, redis_asyncio.RedisCluster):
        return list(await pipeline.execute(raise_on_error=False))
    try:
        replies = list(await pipeline.execute(raise_on_error=False))
    except (*GONE, *ELSEWHERE, RedisClusterException):
        replies = [SlotNotCoveredError()] * len(commands)
    failed: Exception | None = None
    for index, command in enumerate(commands):
        if isinstance(replies[index], (*GONE, *ELSEWHERE)):
            try:
                replies[index] = failed or await client.execute_command(*command.words, **command.options)
            except (RedisError, RedisClusterException) as error:
                replies[index] = failed = error
    return replies


def nodes(client: Client) -> list[Redis]:
    """Return a client of each server that holds data."""
    if not isinstance(client, RedisCluster):
        return [client]
    return [client.get_redis_connection(node) for node in client.get_primaries()]


def _owner(client: RedisCluster, key: bytes) -> ClusterNode | None:
    """Return the node that has a key, as far as the client knows."""
    try:
        node: ClusterNode | None = client.get_node_from_key(key)
    except SlotNotCoveredError:
        return None
    return node


def _pipelined(client: Redis, commands: Iterable[Command]) -> list[Any]:
    pipeline: Any = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command.words, **command.options)
    return list(pipeline.execute(raise_on_error=False))


def _redirected(client: RedisCluster, commands: Sequence[Command], replies: list[Any]) -> list[Any]:
    """Ask again, one by one, for what was not answered; the first that fails for good fails the rest."""
    failed: Exception | None = None
    for index, (command, reply) in enumerate(zip(commands, replies, strict=True)):
        if not isinstance(reply, ELSEWHERE):
            continue
        if failed:
            replies[index] = failed
            continue
        try:
            replies[index] = client.execute_command(*command.words, **command.options)
        except (RedisError, RedisClusterException) as error:
            replies[index] = failed = error
    return replies
