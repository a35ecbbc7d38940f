"""One server or a cluster of them: several commands in one round trip to each node, wherever their keys lie."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from redis import Redis
from redis import asyncio as redis_asyncio
from redis.asyncio.cluster import PipelineCommand
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
    from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence

__all__ = [
    "CUT_OFF",
    "RAW",
    "AsyncClient",
    "Client",
    "Command",
    "checked",
    "drive",
    "drive_async",
    "nodes",
    "raise_first",
    "run",
    "run_all",
    "run_all_async",
    "run_async",
]

Client = Redis | RedisCluster
AsyncClient = redis_asyncio.Redis | redis_asyncio.RedisCluster
RAW = {NEVER_DECODE: True}  # bodies and names are bytes to us, whatever the client was told to decode

UNANSWERED = (  # a node is gone, or has given the slot away: the cluster's client finds out which node has it now
    RedisConnectionError,
    RedisTimeoutError,
    SlotNotCoveredError,
    MovedError,
    AskError,
    TryAgainError,
    ClusterDownError,
)
# redis-py's, when another thread or task closes a connection that is in use; its asyncio cluster client closes those of
# all nodes when it looks for the nodes anew.
CUT_OFF = (AttributeError, TypeError, ValueError)
CUT_OFF_ATTEMPTS = 5  # of a command whose connection is closed in use: with many tasks that may happen in a row
T = TypeVar("T")
R = TypeVar("R")


class Command(NamedTuple):
    """A command, and a key of it that says which node it goes to."""

    key: bytes
    words: tuple[Any, ...]
    options: dict[str, Any] = RAW


def raise_first(replies: list[Any]) -> list[Any]:
    """Return replies as they are, or raise the first error among them; all other commands were run."""
    return [checked(reply) for reply in replies]


def checked(reply: Any) -> Any:
    """Return a reply, or raise the error in its place."""
    if isinstance(reply, Exception):
        raise reply
    return reply


def run(client: Client, command: Command) -> Any:
    """Run one command, and return its reply.

    redis-py's clients of a cluster find the keys of EVALSHA by themselves, but ask the server for those of EVALSHA_RO
    before each call.
    """
    if command.words[0].endswith("_RO") and isinstance(client, RedisCluster):
        return checked(run_all(client, [command])[0])
    execute: Any = client.execute_command
    return execute(*command.words, **command.options)


async def run_async(client: AsyncClient, command: Command) -> Any:
    """Run a command as `run` does, through a client of ``redis.asyncio``."""
    if command.words[0].endswith("_RO") and isinstance(client, redis_asyncio.RedisCluster):
        return checked((await run_all_async(client, [command]))[0])
    return await client.execute_command(*command.words, **command.options)


def run_all(client: Client, commands: Sequence[Command]) -> list[Any]:
    """Run commands in one round trip to each node; return the replies in order, an error in its reply's place.

    redis-py's own pipeline of a cluster refuses scripts, and fails as a whole with one node. Here each node gets a
    plain pipeline, side by side. Commands that a node did not answer are retried through the cluster's client.
    """
    if not isinstance(client, RedisCluster):
        return _pipelined(client, commands)
    by_node = _by_node(client, commands)

    def ask(node: ClusterNode | None) -> list[Any]:
        own = [commands[index] for index in by_node[node]]
        replies: list[Any] = [SlotNotCoveredError()] * len(own)
        with suppress(*UNANSWERED):
            if node:
                replies = _pipelined(client.get_redis_connection(node), own)
        drive(ask_again(own, replies), lambda command: client.execute_command(*command.words, **command.options))
        return replies

    with ThreadPoolExecutor(max(1, len(by_node))) as pool:
        answers = pool.map(ask, by_node) if len(by_node) > 1 else map(ask, by_node)
        return _in_order(by_node, answers)


async def run_all_async(client: AsyncClient, commands: Sequence[Command]) -> list[Any]:
    """Run commands as `run_all` does, through a client of ``redis.asyncio``."""
    if not isinstance(client, redis_asyncio.RedisCluster):
        pipeline: Any = client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command.words, **command.options)
        return list(await pipeline.execute(raise_on_error=False))
    with suppress(*UNANSWERED, *CUT_OFF):  # then each command asks for its node by itself
        await client.initialize()
    by_node = _by_node(client, commands)

    pipelines = [_pipelined_async(node, [commands[index] for index in own]) for node, own in by_node.items()]
    answers = await asyncio.gather(*pipelines)
    for own, replies in zip(by_node.values(), answers, strict=True):  # not side by side: each may replace all nodes
        await drive_async(
            ask_again([commands[index] for index in own], replies),
            lambda command: client.execute_command(*command.words, **command.options),
        )
    return _in_order(by_node, answers)


async def _pipelined_async(node: Any, commands: Sequence[Command]) -> list[Any]:
    """Return what a node of ``redis.asyncio`` replies; an error, or that it did not, stands in a reply's place."""
    asked = [PipelineCommand(index, *command.words, **command.options) for index, command in enumerate(commands)]
    with suppress(*UNANSWERED, *CUT_OFF):
        if node:
            await node.execute_pipeline(asked)
    unanswered = (type(None), *CUT_OFF)
    return [SlotNotCoveredError() if isinstance(command.result, unanswered) else command.result for command in asked]


def ask_again(commands: Sequence[Command], replies: list[Any]) -> Generator[Command, Any, None]:
    """Yield each command that its node did not answer, and put the reply that is sent back into its place.

    A command that fails once more answers for those after it: its node is gone, and each attempt takes a second.
    """
    failed: Exception | None = None
    for index, command in enumerate(commands):
        for _ in range(CUT_OFF_ATTEMPTS):
            if failed or not isinstance(replies[index], UNANSWERED):
                break
            replies[index] = yield command
            if not _is_cut_off(replies[index]):
                break
        if isinstance(replies[index], UNANSWERED):
            failed = replies[index] = failed or replies[index]


def _is_cut_off(reply: Any) -> bool:
    """Return whether a connection ended that stood: its node lives, and another task may have closed it."""
    return isinstance(reply, RedisConnectionError) and "connecting to" not in str(reply)


def drive(steps: Generator[T, Any, R], run_step: Callable[[T], Any]) -> R:
    """Run what the generator yields, send each reply or error back, return its result."""
    try:
        step = next(steps)
        while True:
            try:
                reply = run_step(step)
            except (RedisError, RedisClusterException) as error:
                reply = error
            step = steps.send(reply)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # of the steps


async def drive_async(steps: Generator[T, Any, R], run_step: Callable[[T], Awaitable[Any]]) -> R:
    """Drive a generator as `drive` does, where running is awaited."""
    try:
        step = next(steps)
        while True:
            try:
                reply = await run_step(step)
            except (RedisError, RedisClusterException) as error:
                reply = error
            step = steps.send(reply)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # of the steps


def nodes(client: Client) -> list[Redis]:
    """Return a client of each server that holds data."""
    if not isinstance(client, RedisCluster):
        return [client]
    return [client.get_redis_connection(node) for node in client.get_primaries()]


def _by_node(client: RedisCluster | redis_asyncio.RedisCluster, commands: Sequence[Command]) -> dict[Any, list[int]]:
    """Return which commands go to each node, as far as the client knows; None for those whose node it does not know."""
    by_node: dict[Any, list[int]] = defaultdict(list)
    for index, command in enumerate(commands):
        node: Any = None
        with suppress(SlotNotCoveredError):
            node = client.get_node_from_key(command.key)  # type: ignore[arg-type]  # bytes are keys too
        by_node[node].append(index)
    return by_node


def _in_order(by_node: dict[Any, list[int]], answers: Iterable[list[Any]]) -> list[Any]:
    """Return the replies of all nodes in the order of the commands."""
    replies: dict[int, Any] = {}
    for indexes, of_node in zip(by_node.values(), answers, strict=True):
        replies.update(zip(indexes, of_node, strict=True))
    return [replies[index] for index in sorted(replies)]


def _pipelined(client: Redis, commands: Iterable[Command]) -> list[Any]:
    pipeline: Any = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command.words, **command.options)
    return list(pipeline.execute(raise_on_error=False))
