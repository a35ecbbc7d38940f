"""The calls of an `AsyncChat` to Redis: the twin of ``transport``, with tasks in place of threads."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import OutOfMemoryError

from chat.store.connect import confirm_client, stop_retrying
from chat.store.scripts import CHECK, out_of_memory
from chat.store.shards import confirm_shards_async
from chat.waiting.async_wake_ups import AsyncWakeUps
from chat.waiting.checks import CheckTasks
from chat.waiting.gate import AsyncGate, share_of_waiters
from chat.waiting.wait import UNREACHABLE_ERRORS, Wait

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from chat._pages import Pages
    from chat._replies import Checking
    from chat._values import Check, Message
    from chat.store.keys import Keys
    from chat.store.nodes import AsyncClient

__all__ = ["AsyncTransport"]

T = TypeVar("T")


class AsyncTransport:
    """Runs the calls of one chat.

    Args:
        client: a client of ``redis.asyncio``.
        keys: names of the keys; their number of shards is confirmed before the first call.

    Raises:
        InvalidArgumentError: `client` is not a client of ``redis.asyncio``.
    """

    def __init__(self, client: AsyncClient, keys: Keys) -> None:
        confirm_client(client, asynchronous=True, use="AsyncChat.from_url(url)", other="Chat")
        self.client = client
        self._keys = keys
        self._confirming = asyncio.Lock()
        self._confirmed = False
        self._gate = AsyncGate(client)
        self._checks = CheckTasks(share_of_waiters(client))
        self._wake_ups = AsyncWakeUps(client)

    async def store(self, work: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """See `Transport.store`."""
        try:
            await self._confirm_shards()
            return await self._gate.run(work, self.client, *args)
        except OutOfMemoryError as error:
            raise out_of_memory() from error

    async def read(self, work: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """See `Transport.read`."""
        with suppress(OutOfMemoryError):
            await self._confirm_shards()
        return await self._gate.run(work, self.client, *args)

    async def check(self, request: Checking) -> Check:
        """Return the check of a channel."""
        return request.checked(await self.read(CHECK.run_async, request.keys, request.args))

    async def wait(self, wait: Wait) -> Check:
        """Check until there is news, or the time is over."""
        while True:
            try:
                timeout = wait.timeout(time.monotonic())
                subscription = await self._checks.run(timeout, self._wake_ups.subscription, wait.log)
                with subscription.ticket(wait.log) as ticket:
                    timeout = wait.timeout(time.monotonic())  # what subscribing has left of it
                    wait.succeeded(await self._checks.run(timeout, self.check, wait.request), time.monotonic())
                    pause = wait.pause(time.monotonic())
                    if not pause:
                        return wait.check
                    await _wait_for(ticket.event, pause)
                    ticket.raise_refused()
            except UNREACHABLE_ERRORS as error:
                await _wait_for(self._gate.closed, wait.failed(error, time.monotonic()))

    async def listen(self, wait: Wait) -> AsyncIterator[Message]:
        """Yield the messages of one wait after the other."""
        while True:
            wait = wait.next(time.monotonic())
            for message in await self.wait(wait):
                yield message

    async def scan(self, pages: Pages[T], work: Callable[..., Awaitable[Any]], *args: Any) -> AsyncIterator[T]:
        """Yield the items of all pages; ``work(client, *args, pages.args)`` reads one."""
        while pages.more:
            for item in pages.take(await self.read(work, *args, pages.args)):
                yield item

    async def aclose(self) -> None:
        """End waits and calls, and close the connections."""
        self._gate.closed.set()
        stop_retrying(self.client)
        try:
            await self._wake_ups.close()
            await self._gate.drain()
        finally:
            await self.client.aclose()

    async def _confirm_shards(self) -> None:
        if not self._confirmed:
            async with self._confirming:
                if not self._confirmed:  # by a task before
                    await self._gate.run(confirm_shards_async, self.client, self._keys)
                    self._confirmed = True


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, or until the time is over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
