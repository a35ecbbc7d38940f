"""As ``_chat``, for asyncio: only who waits for Redis differs."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from redis.exceptions import OutOfMemoryError

from chat._codec import decode_history, decode_presence
from chat._requests import PAGE, Checking, Requests
from chat.settings import Settings
from chat.store.connect import confirm_arguments, connect_async, stop_retrying
from chat.store.keys import decode_name
from chat.store.layout import confirm_shards_async
from chat.store.nodes import RAW
from chat.store.scripts import CHECK, CLIENTS, SEND, Script, call_all_async, out_of_memory
from chat.waiting.aio import AsyncWakeUps
from chat.waiting.gate import AsyncGate, share_of_waiters
from chat.waiting.looks import AsyncLooks
from chat.waiting.wait import LONGEST_WAIT, UNREACHABLE, Wait, seconds_to_wait

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from chat._values import Check, Message, Presence
    from chat.store.nodes import AsyncClient

__all__ = ["AsyncChat"]


class AsyncChat:
    """`Chat` for asyncio: the same names, arguments, results and errors.

    It belongs to the event loop of its first call: make another one for a second ``asyncio.run``.
    The tasks of that loop may share it, any number of them: a call waits for one of the client's connections.
    A check whose task is cancelled may have read what it did not return: pass the last cursor as ``after``.

    Args:
        client: a client of ``redis.asyncio``; it is used as it is, its retries included.
        settings: as for `Chat`.
    """

    def __init__(self, client: AsyncClient, *, settings: Settings | None = None) -> None:
        confirm_arguments(client, settings, asynchronous=True)
        self._client = client
        self._settings = settings or Settings()
        self._requests = Requests(self._settings)
        self._gate = AsyncGate(client)
        self._looks = AsyncLooks(share_of_waiters(client))
        self._wake_ups = AsyncWakeUps(client)
        self._confirming = asyncio.Lock()
        self._confirmed = False

    @classmethod
    def from_url(cls, url: str, *, settings: Settings | None = None) -> Self:
        """Return a chat as `Chat.from_url` does; the first call connects."""
        return cls(connect_async(url), settings=settings)

    @classmethod
    def from_env(cls) -> Self:
        """Return a chat as `Chat.from_env` does."""
        settings = Settings.from_env()
        return cls(connect_async(settings.redis_url), settings=settings)

    async def send_message(self, channel: str, body: Any, *, key: str | None = None) -> Message:
        """Do as `Chat.send_message` does."""
        sending = self._requests.send(channel, body, key)
        try:
            await self._confirm()
            reply = await self._run(SEND, sending.keys, sending.args)
        except OutOfMemoryError as error:
            raise out_of_memory() from error
        return sending.sent(reply)

    async def check_messages(
        self,
        client: str,
        channel: str,
        *,
        limit: int | None = None,
        after: str | None = None,
        history: int = 0,
        wait: float = 0,
    ) -> Check:
        """Do as `Chat.check_messages` does."""
        request = self._requests.check(client, channel, limit, after, history)
        if wait == 0:
            return await self._check(request)
        return await self._wait(self._new_wait(request, seconds_to_wait(wait)))

    async def check_many(
        self,
        client: str,
        channels: Iterable[str] | Mapping[str, str | None],
        *,
        limit: int | None = None,
        history: int = 0,
    ) -> dict[str, Check]:
        """Do as `Chat.check_many` does."""
        many = self._requests.check_many(client, channels, limit, history)
        await self._confirm_to_read()
        return many.checked(await self._gate.run(call_all_async, self._client, many.calls))

    def listen(
        self, client: str, channel: str, *, after: str | None = None, history: int = 0
    ) -> AsyncIterator[Message]:
        """Do as `Chat.listen` does."""
        return self._listen(self._requests.check(client, channel, None, after, history))

    async def read_history(
        self, channel: str, *, limit: int | None = 20, before: int | None = None
    ) -> tuple[Message, ...]:
        """Do as `Chat.read_history` does."""
        call = self._requests.history(channel, limit, before)
        await self._confirm_to_read()
        return decode_history(await self._run(*call))

    def clients(self, channel: str) -> AsyncIterator[Presence]:
        """Do as `Chat.clients` does."""
        return self._clients(self._requests.clients(channel))

    async def count_clients(self, channel: str) -> int:
        """Do as `Chat.count_clients` does."""
        seen, _ = self._requests.clients(channel)
        await self._confirm_to_read()
        return int(await self._gate.run(self._client.zcard, seen))

    async def leave_channel(self, client: str, channel: str) -> None:
        """Do as `Chat.leave_channel` does."""
        call = self._requests.leave(client, channel)
        await self._confirm_to_read()
        await self._run(*call)

    async def channels(self) -> AsyncIterator[str]:
        """Do as `Chat.channels` does."""
        await self._confirm_to_read()
        client: Any = self._client
        for index in self._requests.indexes():
            cursor, named = 0, set[bytes]()
            while True:
                page = partial(client.execute_command, "ZSCAN", index, cursor, "COUNT", PAGE, **RAW)
                cursor, entries = await self._gate.run(page)
                fresh = dict(entries).keys() - named
                named |= fresh
                for name in fresh:
                    yield decode_name(name)
                if not cursor:
                    break

    async def aclose(self) -> None:
        """Close as `Chat.close` does."""
        self._gate.closed.set()
        stop_retrying(self._client)
        try:
            await self._wake_ups.close()
            await self._gate.drain()
        finally:
            await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _run(self, script: Script, keys: Sequence[bytes], args: Iterable[Any]) -> Any:
        return await self._gate.run(script.run_async, self._client, keys, args)

    async def _check(self, request: Checking) -> Check:
        await self._confirm_to_read()
        return request.checked(await self._run(CHECK, request.keys, request.args))

    async def _wait(self, wait: Wait) -> Check:
        """Check until there is news, or the time is over."""
        while True:
            try:
                patience = wait.patience(time.monotonic())
                subscription = await self._looks.run(patience, self._wake_ups.subscription, wait.log)
                with subscription.ticket(wait.log) as ticket:
                    wait.told(await self._looks.run(patience, self._check, wait.request))
                    pause = wait.pause(time.monotonic())
                    if not pause:
                        return wait.check
                    await _event(ticket.event, pause)
                    ticket.raise_refused()
            except UNREACHABLE as error:
                await _event(self._gate.closed, wait.failed(error, time.monotonic()))

    async def _listen(self, request: Checking) -> AsyncIterator[Message]:
        patient = False
        while True:
            wait = self._new_wait(request, LONGEST_WAIT, patient=patient)
            for message in await self._wait(wait):
                yield message
            request, patient = wait.request, True

    def _new_wait(self, request: Checking, seconds: float, *, patient: bool = False) -> Wait:
        return Wait(request, seconds, self._settings.client_timeout, time.monotonic(), patient=patient)

    async def _clients(self, keys: tuple[bytes, ...]) -> AsyncIterator[Presence]:
        await self._confirm_to_read()
        cursor, named = b"0", set[str]()
        while True:
            cursor, *page = await self._run(CLIENTS, keys, (cursor, PAGE))
            for presence in decode_presence(page):
                if presence.client not in named:
                    named.add(presence.client)
                    yield presence
            if cursor == b"0":
                return

    async def _confirm(self) -> None:
        """Make sure of the layout, before the first call of this object."""
        if not self._confirmed:
            async with self._confirming:
                if not self._confirmed:  # by a task before
                    await self._gate.run(confirm_shards_async, self._client, self._requests.keys)
                    self._confirmed = True

    async def _confirm_to_read(self) -> None:
        """Do as `_confirm` does; a full Redis without the layout yet keeps nobody from reading."""
        with suppress(OutOfMemoryError):
            await self._confirm()


async def _event(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, or until the time is over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
