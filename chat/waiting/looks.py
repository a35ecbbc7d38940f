"""The checks of waiters, made apart from the waiters: an outage of Redis holds none of them past its time."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from chat.waiting.wait import unanswered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["AsyncLooks", "Looks"]

LINGER = 5  # seconds that a thread waits for another check


class Looks:
    """Makes the checks of waiting threads in threads of its own, so that an outage holds no waiter past its time."""

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
        if self._process != os.getpid():  # a fork takes no threads along
            self._begin()
        with self._lock:
            self._pending += 1
            self._jobs.put((partial(work, *args), future))
            if self._threads < min(self._pending, self._limit):
                self._threads += 1
                threading.Thread(target=self._serve, name="chat-look", daemon=True).start()
        try:
            return future.result(seconds)
        except TimeoutError:
            if future.cancel() or not future.done():
                raise unanswered() from None
            return future.result()

    def _serve(self) -> None:
        """Make one check after the other until there has been none for a while."""
        while True:
            try:
                work, future = self._jobs.get(timeout=LINGER)
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


class AsyncLooks:
    """Makes the checks of waiting tasks in tasks of their own, so that an outage holds no waiter past its time."""

    def __init__(self, limit: int) -> None:
        self._turns = asyncio.Semaphore(limit)
        self._left: set[asyncio.Task[Any]] = set()  # still ending: redis-py may swallow a cancellation

    async def run(self, seconds: float, work: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Return what ``work(*args)`` returns.

        Raises:
            redis.exceptions.TimeoutError: it did not within `seconds`, and is cancelled.
        """
        look = asyncio.create_task(self._in_turn(work, args))
        try:
            await asyncio.wait([look], timeout=seconds)
            if not look.done():
                raise unanswered()
            return look.result()
        finally:
            if not look.done():
                look.cancel()
                self._left.add(look)
                look.add_done_callback(self._forget)

    async def _in_turn(self, work: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> Any:
        async with self._turns:
            return await work(*args)

    def _forget(self, look: asyncio.Task[Any]) -> None:
        self._left.discard(look)
        if not look.cancelled():
            look.exception()  # nobody is left to be told
