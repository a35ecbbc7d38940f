"""`Chat` for asyncio: the same calls, with an `AsyncTransport`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

from chat._pages import Pages, page_of_channels, page_of_clients, scan_index
from chat._requests import Requests
from chat.settings import Settings
from chat.store.connect import connect_async
from chat.store.entries import decode_slice
from chat.store.scripts import CLIENTS, SEND, call_all_async
from chat.waiting.async_transport import AsyncTransport
from chat.waiting.wait import LONGEST_WAIT, Wait, seconds_to_wait

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from chat._replies import Checking
    from chat._values import Check, Message, Presence
    from chat.store.nodes import AsyncClient

__all__ = ["AsyncChat"]


class AsyncChat:
    """A poll-based chat kept in Redis, for asyncio: names, arguments, results and errors are those of `Chat`.

    It belongs to the event loop of its first call: make another one for a second ``asyncio.run``.
    The tasks of that loop may share it, any number of them: a call waits for one of the client's connections.
    A check whose task is cancelled may have read what it did not return: pass the last cursor as ``after``.

    Args:
        client: a client of ``redis.asyncio``; it is used as it is, its retries included.
        settings: limits and layout; None for the defaults. Reads no environment.
    """

    def __init__(self, client: AsyncClient, *, settings: Settings | None = None) -> None:
        self._requests = Requests(settings)
        self._transport = AsyncTransport(client, self._requests.keys)

    @classmethod
    def from_url(cls, url: str, *, settings: Settings | None = None) -> Self:
        """Return a chat on the Redis at `url`, with a client that outlives short failures of the network.

        The first call connects. See `Chat.from_url`.
        """
        return cls(connect_async(url), settings=settings)

    @classmethod
    def from_env(cls) -> Self:
        """Return a chat with the settings of the environment and ``.env``. See `Chat.from_env`."""
        settings = Settings.from_env()
        return cls(connect_async(settings.redis_url), settings=settings)

    async def send_message(self, channel: str, body: Any, *, key: str | None = None) -> Message:
        """Store one message in a channel; the channel begins with its first message.

        See `Chat.send_message`.
        """
        sending = self._requests.send(channel, body, key)
        return sending.sent(await self._transport.store(SEND.run_async, sending.keys, sending.args))

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
        """Return what a client has not read of a channel yet, and count it as read.

        See `Chat.check_messages`.
        """
        request = self._requests.check(client, channel, limit, after, history)
        if wait == 0:
            return await self._transport.check(request)
        return await self._transport.wait(self._wait(request, seconds_to_wait(wait)))

    async def check_many(
        self,
        client: str,
        channels: Iterable[str] | Mapping[str, str | None],
        *,
        limit: int | None = None,
        history: int = 0,
    ) -> dict[str, Check]:
        """Check several channels in one round trip; on a cluster in one to each server, side by side.

        See `Chat.check_many`.
        """
        many = self._requests.check_many(client, channels, limit, history)
        return many.checked(await self._transport.read(call_all_async, many.calls))

    def listen(
        self, client: str, channel: str, *, after: str | None = None, history: int = 0
    ) -> AsyncIterator[Message]:
        """Yield a client's messages of a channel as they come; closing the chat ends it with `ChatClosedError`.

        See `Chat.listen`.
        """
        request = self._requests.check(client, channel, None, after, history)
        return self._transport.listen(self._wait(request, LONGEST_WAIT))

    async def read_history(
        self, channel: str, *, limit: int | None = 20, before: int | None = None
    ) -> tuple[Message, ...]:
        """Return messages of a channel, oldest first; no client's position moves.

        See `Chat.read_history`.
        """
        script, keys, args = self._requests.history(channel, limit, before)
        return decode_slice(*await self._transport.read(script.run_async, keys, args))

    def clients(self, channel: str) -> AsyncIterator[Presence]:
        """Yield the clients that are connected to a channel, page by page and in no order.

        See `Chat.clients`.
        """
        return self._transport.scan(Pages(page_of_clients), CLIENTS.run_async, self._requests.clients(channel))

    async def count_clients(self, channel: str) -> int:
        """Return how many clients are connected to a channel."""
        seen, _ = self._requests.clients(channel)
        return int(await self._transport.read(lambda redis: redis.zcard(seen)))

    async def leave_channel(self, client: str, channel: str) -> None:
        """Forget a client of a channel at once; one that is not connected is no error.

        See `Chat.leave_channel`.
        """
        script, keys, args = self._requests.leave(client, channel)
        await self._transport.read(script.run_async, keys, args)

    async def channels(self) -> AsyncIterator[str]:
        """Yield the names of the channels that have been sent to and were not removed, page by page, in no order."""
        for index in self._requests.indexes():
            async for name in self._transport.scan(Pages(page_of_channels), scan_index, index):
                yield name

    async def aclose(self) -> None:
        """Close the connections of the client, which no other chat should use.

        See `Chat.close`.
        """
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _wait(self, request: Checking, seconds: float) -> Wait:
        return Wait(request, seconds, self._requests.settings.client_timeout, time.monotonic())
