"""Send and check: validate, one atomic script, decode."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

from chat._pages import Pages, page_of_channels, page_of_clients, scan_index
from chat._requests import Requests
from chat.settings import Settings
from chat.store.connect import connect
from chat.store.entries import decode_slice
from chat.store.scripts import CLIENTS, SEND, call_all
from chat.waiting.transport import Transport
from chat.waiting.wait import LONGEST_WAIT, Wait, seconds_to_wait

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from chat._replies import Checking
    from chat._values import Check, Message, Presence
    from chat.store.nodes import Client

__all__ = ["Chat"]


class Chat:
    """A poll-based chat kept in Redis.

    Threads may share one, any number of them: a call waits for one of the client's connections. Each call is one
    round trip and one atomic script; no call holds a lock.

    Args:
        client: a redis-py client; it is used as it is, its retries included.
        settings: limits and layout; None for the defaults. Reads no environment.
    """

    def __init__(self, client: Client, *, settings: Settings | None = None) -> None:
        self._requests = Requests(settings)
        self._transport = Transport(client, self._requests.keys)

    @classmethod
    def from_url(cls, url: str, *, settings: Settings | None = None) -> Self:
        """Return a chat on the Redis at `url`, with a client that outlives short failures of the network."""
        return cls(connect(url), settings=settings)

    @classmethod
    def from_env(cls) -> Self:
        """Return a chat with the settings of the environment and ``.env``."""
        settings = Settings.from_env()
        return cls(connect(settings.redis_url), settings=settings)

    def send_message(self, channel: str, body: Any, *, key: str | None = None) -> Message:
        """Store one message in a channel; the channel begins with its first message.

        Args:
            channel: name, 1 to 200 characters.
            body: any JSON value, at most ``max_message_bytes`` long as JSON.
            key: makes the caller's own retries harmless: for ``dedupe_seconds`` the same key in the same
                channel stores nothing and returns the first message's id, and its time while it is stored.
                1 to 200 characters.

        Returns:
            The message as stored, with its id and time.

        Raises:
            InvalidArgumentError: a name, key or body is not allowed; nothing was stored.
            KeyReusedError: the key was used for another body; nothing was stored.
            ChatFullError: Redis is out of memory; this call stored nothing, unless a lost reply made it repeat itself.
            ChatClosedError: the chat is closed; nothing was stored, unless it was closed during the call.
            redis.exceptions.ConnectionError: Redis cannot be reached; a message may have been stored.
        """
        sending = self._requests.send(channel, body, key)
        return sending.sent(self._transport.store(SEND, sending.keys, sending.args))

    def check_messages(
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

        Concurrent checks of one client share its position, so a lost reply of one of them may not be repeated:
        let each pass its own last cursor as ``after``, or check one at a time.

        Args:
            client: name, 1 to 200 characters; a new one starts at the channel's end.
            channel: name, 1 to 200 characters; it need not exist.
            limit: messages at most, 1 to 1,000,000; None for all that is stored. A reply carries about 1 MB, and at
                least one message: ``more`` tells whether others are waiting.
            after: ``cursor`` of the last check whose messages really arrived; the client is served from there.
            history: how many of the latest messages a new client gets, 0 to 1,000,000.
            wait: seconds to wait where nothing is new, 0 to 60; meanwhile the client counts as connected. With a client
                of `from_url` the call ends at most two seconds later, whatever Redis does.

        Returns:
            The messages, oldest first, with `missed`, `more`, `new` and the cursor.

        Raises:
            InvalidArgumentError: a name, limit, history or wait is not allowed.
            InvalidCursorError: ``after`` is no cursor. A cursor of another history is no error: the client gets
                what is stored, and ``new`` is True.
            ChatClosedError: the chat is closed.
            ChatFullError: Redis is out of memory, and the client is not known in the channel yet; known clients go on
                reading.
            redis.exceptions.ConnectionError: Redis cannot be reached, or not again before the wait is over.
            redis.exceptions.TimeoutError: Redis did not answer. After either, or when the call was cancelled, the
                client may have read what was not returned: pass the last cursor as ``after`` to get it.
        """
        request = self._requests.check(client, channel, limit, after, history)
        if wait == 0:
            return self._transport.check(request)
        return self._transport.wait(self._wait(request, seconds_to_wait(wait)))

    def check_many(
        self,
        client: str,
        channels: Iterable[str] | Mapping[str, str | None],
        *,
        limit: int | None = None,
        history: int = 0,
    ) -> dict[str, Check]:
        """Check several channels in one round trip; on a cluster in one to each server, side by side.

        Args:
            client: name, 1 to 200 characters.
            channels: names; or a mapping of names to the cursors of the last checks that arrived, None for none.
            limit: messages of each channel at most. A call carries about 1 MB for up to twenty channels of a shard, and
                at least one message of each channel that has any; ``more`` tells which have others waiting.
            history: how many of the latest messages of each channel a new client gets.

        Returns:
            The check of each channel, in the order given. See `check_messages`.

        Raises:
            ChecksFailedError: some channels could not be checked; it holds the checks of the others.
            InvalidArgumentError: an argument is not allowed; no channel was checked.
            ChatClosedError: the chat is closed.
        """
        many = self._requests.check_many(client, channels, limit, history)
        return many.checked(self._transport.read(call_all, many.calls))

    def listen(self, client: str, channel: str, *, after: str | None = None, history: int = 0) -> Iterator[Message]:
        """Yield a client's messages of a channel as they come; closing the chat ends it with `ChatClosedError`.

        A message counts as read once it or an earlier one of the same check is yielded. To learn what was missed, use
        `check_messages`, which also describes the arguments.

        Raises:
            InvalidArgumentError: an argument is not allowed.
            redis.exceptions.ConnectionError: Redis was away for a minute; at the beginning, at once.
        """
        request = self._requests.check(client, channel, None, after, history)
        return self._transport.listen(self._wait(request, LONGEST_WAIT))

    def read_history(self, channel: str, *, limit: int | None = 20, before: int | None = None) -> tuple[Message, ...]:
        """Return messages of a channel, oldest first; no client's position moves.

        Args:
            channel: name, 1 to 200 characters; it need not exist.
            limit: messages at most, the newest ones, 1 to 1,000,000; None for all. A reply carries about 1 MB, and at
                least one message: read on with the first one's id as `before`, until nothing comes.
            before: only those with a smaller id, 1 or more; None for the newest of all.

        Raises:
            InvalidArgumentError: a name, limit or id is not allowed.
        """
        call = self._requests.history(channel, limit, before)
        return decode_slice(*self._transport.read(*call))

    def clients(self, channel: str) -> Iterator[Presence]:
        """Yield the clients that are connected to a channel, page by page and in no order.

        A client is connected from its first check until it is forgotten: ``checked_at`` says when it last checked.

        Args:
            channel: name, 1 to 200 characters; it need not exist.
        """
        return self._transport.scan(Pages(page_of_clients), CLIENTS, self._requests.clients(channel))

    def count_clients(self, channel: str) -> int:
        """Return how many clients are connected to a channel."""
        seen, _ = self._requests.clients(channel)
        return int(self._transport.read(lambda redis: redis.zcard(seen)))

    def leave_channel(self, client: str, channel: str) -> None:
        """Forget a client of a channel at once; one that is not connected is no error.

        A check of this client that still waits connects it again.
        """
        self._transport.read(*self._requests.leave(client, channel))

    def channels(self) -> Iterator[str]:
        """Yield the names of the channels that have been sent to and were not removed, page by page, in no order."""
        for index in self._requests.indexes():
            yield from self._transport.scan(Pages(page_of_channels), scan_index, index)

    def close(self) -> None:
        """Close the connections of the client, which no other chat should use.

        A check that holds messages still returns them. Other waits, listeners and later calls raise
        `ChatClosedError`.
        """
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, request: Checking, seconds: float) -> Wait:
        return Wait(request, seconds, self._requests.settings.client_timeout, time.monotonic())
