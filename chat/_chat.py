"""Send and check: validate, one atomic script, decode."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import blake2b
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Self

from redis.exceptions import OutOfMemoryError

from chat._arguments import at_least, name_of
from chat._errors import ChatFullError, ChecksFailedError, InvalidArgumentError, KeyReusedError
from chat._keys import Keys
from chat._layout import confirm_shards
from chat._messages import Check, Message, decode_check, decode_cursor, encode_body, time_of
from chat._nodes import raise_first
from chat._scripts import CHECK, SEND
from chat.connection import connect
from chat.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chat._nodes import Client

__all__ = ["Chat"]

TOGETHER = 20  # channels that one call of the script checks: with all to tell, under 1 ms of the server's time


class Chat:
    """A poll-based chat kept in Redis.

    Threads may share one. Each call is one round trip and one atomic script; no call holds a lock.

    Args:
        client: a redis-py client; it is used as it is, its retries included.
        settings: limits and layout; None for the defaults. Reads no environment.
    """

    def __init__(self, client: Client, *, settings: Settings | None = None) -> None:
        self._client = client
        self._settings = settings or Settings()
        self._keys = Keys(self._settings.prefix, self._settings.shards)
        self._dedupe_ms = self._settings.dedupe_seconds * 1000
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
            redis.exceptions.ConnectionError: Redis cannot be reached; a message may have been stored.
        """
        channel_name = name_of("channel name", channel)
        encoded = encode_body(body, self._settings.max_message_bytes)
        if key is None:
            token, digest = os.urandom(12), b""
        else:
            scope = b"%d:%s" % (len(channel_name), channel_name)
            token = blake2b(scope + name_of("key", key), digest_size=16).digest()
            digest = blake2b(encoded, digest_size=16).hexdigest().encode()
        args = (channel_name, encoded, token, digest, self._settings.hard_backlog, self._dedupe_ms)
        try:
            self._confirm()
            message_id, sent_ms = SEND(self._client, self._keys.for_send(channel_name), args)
        except OutOfMemoryError as error:
            message = "Redis is out of memory, nothing was stored by this call: clean, raise maxmemory, or keep less"
            raise ChatFullError(message) from error
        if not message_id:
            message = f"key {key!r} was used for another body in channel {channel!r}, must be new for each message"
            raise KeyReusedError(message)
        return Message(message_id, time_of(sent_ms), body)

    def check_messages(
        self,
        client: str,
        channel: str,
        *,
        limit: int | None = None,
        after: str | None = None,
        history: int = 0,
    ) -> Check:
        """Return what a client has not read of a channel yet, and count it as read.

        Args:
            client: name, 1 to 200 characters; a new one starts at the channel's end.
            channel: name, 1 to 200 characters; it need not exist.
            limit: messages at most, 1 or more; None for all that is stored.
            after: ``cursor`` of the last check whose messages really arrived; the client is served from there.
            history: so many of the latest messages a new client gets, 0 or more.

        Returns:
            The messages, oldest first, and what is to know about them.

        Raises:
            InvalidArgumentError: a name, limit or history that is not allowed.
            InvalidCursorError: ``after`` is no cursor. A cursor of another history is no error: the client gets
                what is stored, and ``new`` is True.
            redis.exceptions.ConnectionError: Redis cannot be reached; ``after`` repairs what was lost on the way.
        """
        name = name_of("channel name", channel)
        reader = (name_of("client name", client), os.urandom(8), *_amounts(limit, history))
        keys = self._keys.for_check(self._keys.shard_of(name), [name])
        args = (*reader, name, decode_cursor(name, after))
        with suppress(OutOfMemoryError):  # a full Redis without the layout yet: reading goes on
            self._confirm()
        (reply,) = raise_first(CHECK(self._client, keys, args))
        return decode_check(name, reply)

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
            limit: of each channel.
            history: of each channel.

        Returns:
            The check of each channel, in the order given.

        Raises:
            ChecksFailedError: some channels could not be checked; it holds the checks of the others.
            InvalidArgumentError: as for `check_messages`, like the others; no channel was checked.
        """
        if isinstance(channels, str) or not isinstance(channels, Iterable):
            message = f"channels is {channels!r}, must be a list of names, or a mapping of names to cursors"
            raise InvalidArgumentError(message)
        cursors = channels if isinstance(channels, Mapping) else dict.fromkeys(channels)
        reader = (name_of("client name", client), os.urandom(8), *_amounts(limit, history))
        asked = {}
        for channel, after in cursors.items():
            name = name_of("channel name", channel)
            asked[channel] = (name, decode_cursor(name, after))
        with suppress(OutOfMemoryError):
            self._confirm()
        batches = list(self._by_shard(asked))
        calls = [
            (
                self._keys.for_check(shard, [asked[channel][0] for channel in batch]),
                (*reader, *chain.from_iterable(asked[channel] for channel in batch)),
            )
            for shard, batch in batches
        ]
        checks, errors = {}, {}
        for (_, batch), replies in zip(batches, CHECK.each(self._client, calls), strict=True):
            each = repeat(replies) if isinstance(replies, Exception) else replies
            for channel, reply in zip(batch, each, strict=False):
                if isinstance(reply, Exception):
                    errors[channel] = reply
                else:
                    checks[channel] = decode_check(asked[channel][0], reply)
        if errors:
            raise ChecksFailedError(checks, errors)
        return {channel: checks[channel] for channel in asked}

    def _by_shard(self, asked: Mapping[str, tuple[Any, ...]]) -> Iterator[tuple[int, list[str]]]:
        """Yield the channels of each shard, as many as one call takes."""
        shards: dict[int, list[str]] = defaultdict(list)
        for channel, (name, *_) in asked.items():
            shards[self._keys.shard_of(name)].append(channel)
        for shard, channels in shards.items():
            for start in range(0, len(channels), TOGETHER):
                yield shard, channels[start : start + TOGETHER]

    def _confirm(self) -> None:
        """Make sure of the layout, before the first call of this object."""
        if not self._confirmed:
            confirm_shards(self._client, self._keys, fix=True)
            self._confirmed = True


def _amounts(limit: int | None, history: int) -> tuple[int, int]:
    """Return a check's limit, 0 for none, and its history."""
    limited = 0 if limit is None else at_least(1, "limit", limit, ", or None for all")
    return limited, at_least(0, "history", history)
