"""How many calls go to Redis at a time: no number of callers exhausts a client's pool, and none call after closing."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MaxConnectionsError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chat._errors import ChatClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chat._nodes import AsyncClient, Client

__all__ = ["CLOSING", "CUT_OFF", "GONE", "AsyncGate", "Gate", "share_of_waiters"]

CONNECTIONS = 96  # of the 100 of redis-py's pool; the others are for subscriptions
PATIENCE = 5  # seconds that a call waits for a free connection
CLOSING = 1  # seconds that calls under way may take to end once the chat is closed

GONE = (RedisConnectionError, RedisTimeoutError, OSError)
CUT_OFF = (AttributeError, TypeError, ValueError)  # redis-py's, when another thread closes a connection that is read


def connections_of(client: Any) -> int:
    """Return how many calls a client's pool can serve at a time."""
    most = getattr(getattr(client, "connection_pool", None), "max_connections", None)
    if not isinstance(most, int):  # a cluster's client, with a pool for each server; or a wrapper
        return CONNECTIONS
    return max(1, min(CONNECTIONS, most - 2))


def share_of_waiters(client: Any) -> int:
    """Return how many of these may be checks of waiters, so that other calls do not queue behind them."""
    return max(1, connections_of(client) // 3)


class Gate:
    """Lets so many calls to Redis through at a time, and none once `closed` is set."""

    def __init__(self, client: Client) -> None:
        self.closed = threading.Event()
        self._free: SimpleQueue[None] = SimpleQueue()  # a semaphore in C: a call passes twice
        self._limit = connections_of(client)
        for _ in range(self._limit):
            self._free.put(None)

    def __enter__(self) -> None:
        try:
            self._free.get(timeout=PATIENCE)
        except Empty:
            message = f"all {self._limit} connections were in use for {PATIENCE} seconds"
            raise MaxConnectionsError(message) from None
        if self.closed.is_set():
            self._free.put(None)
            raise ChatClosedError

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._free.put(None)
        if self.closed.is_set() and isinstance(error, (*GONE, *CUT_OFF)):
            raise ChatClosedError from error

    def drain(self, until: float) -> None:
        """Give calls that are under way until then to end."""
        taken = 0
        with suppress(Empty):
            for taken in range(1, self._limit + 1):  # noqa: B007  read below
                self._free.get(timeout=max(0.001, until - time.monotonic()))
        for _ in range(taken):
            self._free.put(None)


class AsyncGate:
    """Lets so many calls to Redis through at a time, and none once `closed` is set."""

    def __init__(self, client: AsyncClient) -> None:
        self.closed = asyncio.Event()
        self._limit = connections_of(client)
        self._free = asyncio.Semaphore(self._limit)

    async def run(self, work: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Return what ``work(*args)`` returns.

        Raises:
            ChatClosedError: the gate is closed, or was closed meanwhile and took the connection away.
            redis.exceptions.MaxConnectionsError: no connection became free for PATIENCE seconds.
        """
        await self._enter()
        try:
            return await _uninterrupted(work, *args)
        except (*GONE, *CUT_OFF) as error:
            if self.closed.is_set():
                raise ChatClosedError from error
            raise
        finally:
            self._free.release()

    async def drain(self) -> None:
        """Give calls that are under way a moment to end."""
        taken = 0
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSING):
                    for taken in range(1, self._limit + 1):  # noqa: B007  read below
                        await self._free.acquire()
        finally:
            for _ in range(taken):
                self._free.release()

    async def _enter(self) -> None:
        try:
            if self._free.locked():
                async with asyncio.timeout(PATIENCE):
                    await self._free.acquire()
            else:
                await self._free.acquire()
        except TimeoutError:
            message = f"all {self._limit} connections were in use for {PATIENCE} seconds"
            raise MaxConnectionsError(message) from None
        if self.closed.is_set():
            self._free.release()
            raise ChatClosedError


async def _uninterrupted(work: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Return what ``work(*args)`` returns, unless the task was cancelled meanwhile.

    redis-py sends through ``asyncio.wait_for``, which in Python 3.11 swallows a cancellation that comes when its
    work is just done. The task still counts it.

    Raises:
        asyncio.CancelledError: the task was cancelled.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        return await work(*args)
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError
