"""The checks of waiters, made apart from the waiters: an outage of Redis holds none of them past its time."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from chat.waiting.wait import timed_out

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["CheckTasks", "CheckThreads"]

IDLE = 5  # seconds that a thread waits for another check


class CheckThreads:
    """Makes the checks of waiting threads in daemon threads of its own.

    ``ThreadPoolExecutor`` would join its threads at the interpreter's exit, also one that hangs in a dead connection.

    Args:
        limit: threads at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._threads = self._pending = 0

    def run(self, seconds: float, work: Callable[..., Any], *args: Any) -> Any:
        """Return what ``work(*args)`` returns.

        Raises:
            redis.exceptions.TimeoutError: it did not within `seconds`; it may still be carried out.
        """
        future: Future[Any] = Future()
        if self._process != os.getpid():  # a fork copies no threads
            self._begin()
        with self._lock:
            if self._threads < min(self._pending + 1, self._limit):  # started first, as that may fail
                threading.Thread(target=self._serve, name="chat-check", daemon=True).start()
                self._threads += 1
            self._pending += 1
            self._jobs.put((partial(work, *args), future))
        try:
            return future.result(seconds)
        except TimeoutError:
            if future.cancel() or not future.done():
                raise timed_out() from None
            return future.result()
        finally:
            future.cancel()  # a signal handler may have ended the caller

    def _serve(self) -> None:
        """Make one check after the other until there has been none for a while."""
        while True:
            try:
                work, future = self._jobs.get(timeout=IDLE)
            except Empty:
                with self._lock:
                    if self._jobs.empty():
                        self._threads -= 1
                        return
                continue
            try:
                if future.set_running_or_notify_cancel():
                    future.set_result(work())
            except BaseException as error:  # noqa: BLE001  the waiter's to raise
                future.set_exception(error)
            finally:
                del work, future  # they hold the waiter's frame
                with self._lock:
                    self._pending -= 1


class CheckTasks:
    """Makes the checks of waiting tasks in tasks of their own.

    Args:
        limit: how many go to Redis at a time.
    """

    def __init__(self, limit: int) -> None:
        self._free = asyncio.Semaphore(limit)
        self._ending: set[asyncio.Task[Any]] = set()  # cancelled; redis-py may swallow that

    async def run(self, seconds: float, work: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Return what ``work(*args)`` returns.

        Raises:
            redis.exceptions.TimeoutError: it did not within `seconds`, and is cancelled.
        """
        check = asyncio.create_task(self._admitted(work, args))
        try:
            await asyncio.wait([check], timeout=seconds)
            if not check.done():
                raise timed_out()
            return check.result()
        finally:
            if not check.done():
                check.cancel()
                self._ending.add(check)
                check.add_done_callback(self._ended)

    async def _admitted(self, work: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> Any:
        async with self._free:
            return await work(*args)

    def _ended(self, check: asyncio.Task[Any]) -> None:
        self._ending.discard(check)
        if not check.cancelled():
            check.exception()  # retrieved, as nobody waits for it
