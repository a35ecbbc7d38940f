"""Send and check: validate, one atomic script, decode."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from redis.exceptions import OutOfMemoryError

from chat._codec import decode_history, decode_presence
from chat._requests import PAGE, Checking, Requests
from chat.settings import Settings
from chat.store.connect import confirm_arguments, connect, stop_retrying
from chat.store.keys import decode_name
from chat.store.layout import confirm_shards
from chat.store.nodes import RAW
from chat.store.scripts import CHECK, CLIENTS, SEND, Script, call_all, out_of_memory
from chat.waiting.gate import CLOSING, Gate, share_of_waiters
from chat.waiting.looks import Looks
from chat.waiting.threads import WakeUps
from chat.waiting.wait import LONGEST_WAIT, UNREACHABLE, Wait, seconds_to_wait

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

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
        confirm_arguments(client, settings, asynchronous=False)
        self._client = client
        self._settings = settings or Settings()
        self._requests = Requests(self._settings)
        self._gate = Gate(client)
        self._looks = Looks(share_of_waiters(client))
        self._wake_ups = WakeUps(client)
        self._confirmed = False

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
            InvalidArgumentError: a name, key or body that is not allowed; nothing was stored.
            KeyReusedError: the key was used for another body; nothing was stored.
            ChatFullError: Redis is out of memory; nothing was stored.
            ChatClosedError: the chat is closed; nothing was stored, unless it was closed during the call.
            redis.exceptions.ConnectionError: Redis cannot be reached; a message may have been stored.
        """
        sending = self._requests.send(channel, body, key)
        try:
            self._confirm()
            reply = self._run(SEND, sending.keys, sending.args)
        except OutOfMemoryError as error:
            raise out_of_memory() from error
        return sending.sent(reply)

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

        Checks of one client at the same time share its position, so a lost reply of one of them may not be repeated:
        let each pass its own last cursor as ``after``, or check one at a time.

        Args:
            client: name, 1 to 200 characters; a new one starts at the channel's end.
            channel: name, 1 to 200 characters; it need not exist.
            limit: messages at most, 1 to 1,000,000; None for all that is stored. A reply carries about 1 MB, and at
                least one message: ``more`` tells whether others are waiting.
            after: ``cursor`` of the last check whose messages really arrived; the client is served from there.
            history: so many of the latest messages a new client gets, 0 to 1,000,000.
            wait: seconds to wait where nothing is new, 0 to 60; meanwhile the client counts as connected. With a client
                of `from_url` the call ends at most two seconds later, whatever Redis does.

        Returns:
            The messages, oldest first, and what is to know about them.

        Raises:
            InvalidArgumentError: a name, limit, history or wait that is not allowed.
            InvalidCursorError: ``after`` is no cursor. A cursor of another history is no error: the client gets
                what is stored, and ``new`` is True.
            ChatClosedError: the chat is closed.
            ChatFullError: Redis is out of memory, and the client is not known in the channel yet; clients that are go
                on reading.
            redis.exceptions.ConnectionError: Redis cannot be reached, or not again before the wait is over.
            redis.exceptions.TimeoutError: Redis did not answer. After either, or when the call was cancelled, the
                client may have read what was not returned: pass the last cursor as ``after`` to get it.
        """
        request = self._requests.check(client, channel, limit, after, history)
        if wait == 0:
            return self._check(request)
        return self._wait(self._new_wait(request, seconds_to_wait(wait)))

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
            client: as for `check_messages`, like all that follows.
            channels: names; or a mapping of names to the cursors of the last checks that arrived, None for none.
            limit: of each channel. A call carries about 1 MB for up to twenty channels of a shard, and at least one
                message of each channel that has any; ``more`` tells which have others waiting.
            history: of each channel.

        Returns:
            The check of each channel, in the order given.

        Raises:
            ChecksFailedError: some channels could not be checked; it holds the checks of the others.
            InvalidArgumentError: as for `check_messages`, like the others; no channel was checked.
        """
        many = self._requests.check_many(client, channels, limit, history)
        self._confirm_to_read()
        with self._gate:
            return many.checked(call_all(self._client, many.calls))

    def listen(self, client: str, channel: str, *, after: str | None = None, history: int = 0) -> Iterator[Message]:
        """Yield a client's messages of a channel as they come; closing the chat ends it with `ChatClosedError`.

        A message counts as read once it is yielded, or the ones before it of the same check are. What was missed is
        not told: `check_messages` tells it.

        Args:
            client: as for `check_messages`, like all that follows.
            channel: likewise.
            after: likewise.
            history: likewise.

        Raises:
            InvalidArgumentError: as for `check_messages`, like the others; at the first message.
            redis.exceptions.ConnectionError: Redis was away for a minute; at the beginning, at once.
        """
        return self._listen(self._requests.check(client, channel, None, after, history))

    def read_history(self, channel: str, *, limit: int | None = 20, before: int | None = None) -> tuple[Message, ...]:
        """Return messages of a channel, oldest first; no client's position moves.

        Args:
            channel: name, 1 to 200 characters; it need not exist.
            limit: messages at most, the newest ones, 1 to 1,000,000; None for all. A reply carries about 1 MB, and at
                least one message: read on with the first one's id as `before`, until nothing comes.
            before: only those with a smaller id, 1 or more; None for the newest of all.

        Raises:
            InvalidArgumentError: a name, limit or id that is not allowed.
        """
        call = self._requests.history(channel, limit, before)
        self._confirm_to_read()
        return decode_history(self._run(*call))

    def clients(self, channel: str) -> Iterator[Presence]:
        """Yield the clients that are connected to a channel, page by page and in no order.

        Connected is who has checked and was not forgotten since: ``checked_at`` says how long ago.

        Args:
            channel: name, 1 to 200 characters; it need not exist.
        """
        return self._clients(self._requests.clients(channel))

    def count_clients(self, channel: str) -> int:
        """Return how many clients are connected to a channel."""
        seen, _ = self._requests.clients(channel)
        self._confirm_to_read()
        with self._gate:
            return int(self._client.zcard(seen))

    def leave_channel(self, client: str, channel: str) -> None:
        """Forget a client of a channel at once; one that is not connected is no error.

        A check of this client that still waits connects it again.
        """
        call = self._requests.leave(client, channel)
        self._confirm_to_read()
        self._run(*call)

    def channels(self) -> Iterator[str]:
        """Yield the names of the channels that have been sent to and were not removed, page by page, in no order."""
        self._confirm_to_read()
        client: Any = self._client
        for index in self._requests.indexes():
            cursor, named = 0, set[bytes]()
            while True:
                with self._gate:
                    cursor, entries = client.execute_command("ZSCAN", index, cursor, "COUNT", PAGE, **RAW)
                fresh = dict(entries).keys() - named
                named |= fresh
                yield from map(decode_name, fresh)
                if not cursor:
                    break

    def close(self) -> None:
        """Close the connections of the client, which no other chat should use.

        A check that holds messages still returns them. Other waits, listeners and later calls raise
        `ChatClosedError`.
        """
        self._gate.closed.set()
        stop_retrying(self._client)
        until = time.monotonic() + CLOSING
        self._wake_ups.close(until)
        self._gate.drain(until)
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, script: Script, keys: Sequence[bytes], args: Iterable[Any]) -> Any:
        with self._gate:
            return script(self._client, keys, args)

    def _check(self, request: Checking) -> Check:
        self._confirm_to_read()
        return request.checked(self._run(CHECK, request.keys, request.args))

    def _wait(self, wait: Wait) -> Check:
        """Check until there is news, or the time is over."""
        while True:
            try:
                with self._wake_ups.subscription(wait.log).ticket(wait.log) as ticket:
                    wait.told(self._looks.run(wait.patience(time.monotonic()), self._check, wait.request))
                    pause = wait.pause(time.monotonic())
                    if not pause:
                        return wait.check
                    ticket.event.wait(pause)
                    ticket.raise_refused()
            except UNREACHABLE as error:
                self._gate.closed.wait(wait.failed(error, time.monotonic()))

    def _listen(self, request: Checking) -> Iterator[Message]:
        patient = False
        while True:
            wait = self._new_wait(request, LONGEST_WAIT, patient=patient)
            yield from self._wait(wait)
            request, patient = wait.request, True

    def _new_wait(self, request: Checking, seconds: float, *, patient: bool = False) -> Wait:
        return Wait(request, seconds, self._settings.client_timeout, time.monotonic(), patient=patient)

    def _clients(self, keys: tuple[bytes, ...]) -> Iterator[Presence]:
        self._confirm_to_read()
        cursor, named = b"0", set[str]()
        while True:
            cursor, *page = self._run(CLIENTS, keys, (cursor, PAGE))
            for presence in decode_presence(page):
                if presence.client not in named:
                    named.add(presence.client)
                    yield presence
            if cursor == b"0":
                return

    def _confirm(self) -> None:
        """Make sure of the layout, before the first call of this object."""
        if not self._confirmed:
            with self._gate:
                confirm_shards(self._client, self._requests.keys, fix=True)
            self._confirmed = True

    def _confirm_to_read(self) -> None:
        """Do as `_confirm` does; a full Redis without the layout yet keeps nobody from reading."""
        with suppress(OutOfMemoryError):
            self._confirm()
