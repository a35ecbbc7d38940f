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
from redis.exceptions import RedisClusterException, RedisError, SlotNotCoveredError

from chat.store.retry import UNANSWERED, ask_again

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

# redis-py's errors, when a connection in use is closed, as at the end of a chat.
CUT_OFF = (AttributeError, TypeError, ValueError)
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
    return _execute(client, command)


async def run_async(client: AsyncClient, command: Command) -> Any:
    """Run a command as `run` does, through a client of ``redis.asyncio``."""
    if command.words[0].endswith("_RO") and isinstance(client, redis_asyncio.RedisCluster):
        return checked((await run_all_async(client, [command]))[0])
    return await _execute(client, command)


def run_all(client: Client, commands: Sequence[Command]) -> list[Any]:
    """Run commands in one round trip to each node; return the replies in order, an error in its reply's place.

    redis-py's own pipeline of a cluster refuses scripts, and fails as a whole with one node. Here each node gets a
    plain pipeline, side by side. Commands that a node did not answer are retried through the cluster's client.
    """
    if not isinstance(client, RedisCluster):
        return list(_pipelined(client, commands))
    by_node = _by_node(client, commands)
    replies: list[Any] = [SlotNotCoveredError()] * len(commands)

    def ask(node: ClusterNode | None) -> None:
        own = by_node[node]
        with suppress(*UNANSWERED):
            if node:
                _put(replies, own, _pipelined(client.get_redis_connection(node), [commands[index] for index in own]))
        drive(ask_again(commands, replies, own), lambda command: _execute(client, command))

    with ThreadPoolExecutor(max(1, len(by_node))) as pool:
        list(pool.map(ask, by_node) if len(by_node) > 1 else map(ask, by_node))
    return replies


async def run_all_async(client: AsyncClient, commands: Sequence[Command]) -> list[Any]:
    """Run commands as `run_all` does, through a client of ``redis.asyncio``."""
    if not isinstance(client, redis_asyncio.RedisCluster):
        return list(await _pipelined(client, commands))
    with suppress(*UNANSWERED):  # then each command asks for its node by itself
        await client.initialize()
    by_node = _by_node(client, commands)
    replies: list[Any] = [SlotNotCoveredError()] * len(commands)

    async def ask(node: Any) -> None:
        own = by_node[node]
        asked = [PipelineCommand(index, *commands[index].words, **commands[index].options) for index in own]
        with suppress(*UNANSWERED, AttributeError):  # see explain_cluster
            if node:
                await node.execute_pipeline(asked)
                _put(replies, own, [command.result for command in asked])
        await drive_async(ask_again(commands, replies, own), lambda command: _execute(client, command))

    await asyncio.gather(*map(ask, by_node))
    return replies


def drive(steps: Generator[T, Any, R], run_step: Callable[[T], Any]) -> R:
    """Run what the generator yields, send each reply or error back, return its result."""
    reply: Any = None
    try:
        while True:
            step = steps.send(reply)
            try:
                reply = run_step(step)
            except (RedisError, RedisClusterException) as error:
                reply = error
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # of the steps


async def drive_async(steps: Generator[T, Any, R], run_step: Callable[[T], Awaitable[Any]]) -> R:
    """Drive a generator as `drive` does, where running is awaited."""
    reply: Any = None
    try:
        while True:
            step = steps.send(reply)
            try:
                reply = await run_step(step)
            except (RedisError, RedisClusterException) as error:
                reply = error
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


def _put(replies: list[Any], indexes: list[int], answers: list[Any]) -> None:
    for index, answer in zip(indexes, answers, strict=True):
        replies[index] = answer


def _pipelined(client: Any, commands: Iterable[Command]) -> Any:
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        _execute(pipeline, command)
    return pipeline.execute(raise_on_error=False)


def _execute(client: Any, command: Command) -> Any:
    return client.execute_command(*command.words, **command.options)
