"""A gate for calls to Redis: it admits as many at a time as the client's pool can serve, and none after closing."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MaxConnectionsError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chat._errors import ChatClosedError
from chat.store.nodes import CUT_OFF

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chat.store.nodes import AsyncClient, Client

__all__ = ["CLOSE_TIMEOUT", "DISCONNECTED", "AsyncGate", "Gate", "connections_of", "share_of_waiters"]

CONNECTIONS = 96  # of the 100 of redis-py's pool; the others are for subscriptions
POOL_TIMEOUT = 5  # seconds that a call waits for a free connection
CLOSE_TIMEOUT = 1  # seconds that calls under way may take to end once the chat is closed

DISCONNECTED = (RedisConnectionError, RedisTimeoutError, OSError)
CLOSED_MEANWHILE = (*DISCONNECTED, *CUT_OFF)  # what a call raises when the chat is closed during it


def connections_of(client: Any) -> int:
    """Return how many calls a client's pool can serve at a time."""
    most = getattr(getattr(client, "connection_pool", None), "max_connections", None)
    if not isinstance(most, int):  # a cluster's client, with a pool for each server; or a wrapper
        return CONNECTIONS
    return max(1, min(CONNECTIONS, most - 2))


def share_of_waiters(client: Any) -> int:
    """Return how many of these may be checks of waiters, so that other calls do not queue behind them."""
    return max(1, connections_of(client) // 3)


def _all_in_use(limit: int) -> MaxConnectionsError:
    return MaxConnectionsError(f"all {limit} connections were in use for {POOL_TIMEOUT} seconds")


class Gate:
    """Admits so many calls to Redis at a time, first come, first served, and none once `closed` is set."""

    def __init__(self, client: Client) -> None:
        self.closed = threading.Event()
        self._limit = connections_of(client)
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._free = self._limit
        self._queue: deque[threading.Lock] = deque()  # a held lock for each caller that waits, released when it may go

    def __enter__(self) -> None:
        if self._process != os.getpid():  # a fork copies no threads, so no caller would leave the gate
            self._begin()
        if not self._take(POOL_TIMEOUT):
            raise _all_in_use(self._limit)
        if self.closed.is_set():
            self._give_back()
            raise ChatClosedError

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._give_back()
        if self.closed.is_set() and isinstance(error, CLOSED_MEANWHILE):
            raise ChatClosedError from error

    def drain(self, until: float) -> None:
        """Give calls that are under way until then to end."""
        taken = 0
        while taken < self._limit and self._take(max(0.0, until - time.monotonic())):
            taken += 1
        for _ in range(taken):
            self._give_back()

    def _take(self, seconds: float) -> bool:
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            admitted = threading.Lock()
            admitted.acquire()
            self._queue.append(admitted)
        try:
            if admitted.acquire(timeout=seconds):
                return True
        except BaseException:  # of a signal handler
            if not self._withdraw(admitted):
                self._give_back()
            raise
        return not self._withdraw(admitted)

    def _withdraw(self, caller: threading.Lock) -> bool:
        """Take a caller out of the queue; return False when it was admitted at the last moment."""
        with self._lock:
            waits = caller in self._queue
            if waits:
                self._queue.remove(caller)
            return waits

    def _give_back(self) -> None:
        with self._lock:
            if self._queue:
                self._queue.popleft().release()
            else:
                self._free += 1


class AsyncGate:
    """Admits so many calls to Redis at a time, and none once `closed` is set."""

    def __init__(self, client: AsyncClient) -> None:
        self.closed = asyncio.Event()
        self._limit = connections_of(client)
        self._free = asyncio.Semaphore(self._limit)

    async def run(self, work: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Return what ``work(*args)`` returns.

        Raises:
            ChatClosedError: the gate is closed, or was closed meanwhile and took the connection away.
            redis.exceptions.MaxConnectionsError: no connection became free for POOL_TIMEOUT seconds.
        """
        await self._enter()
        try:
            return await _uninterrupted(work, *args)
        except CLOSED_MEANWHILE as error:
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
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    while taken < self._limit:
                        await self._free.acquire()
                        taken += 1
        finally:
            for _ in range(taken):
                self._free.release()

    async def _enter(self) -> None:
        try:
            if self._free.locked():
                async with asyncio.timeout(POOL_TIMEOUT):
                    await self._free.acquire()
            else:
                await self._free.acquire()
        except TimeoutError:
            raise _all_in_use(self._limit) from None
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
