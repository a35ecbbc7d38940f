"""Send and check: validate, one atomic script, decode."""

from __future__ import annotations

import os
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Self

from redis.exceptions import OutOfMemoryError

from chat._arguments import at_least, name_of
from chat._errors import ChatFullError, KeyReusedError
from chat._keys import Keys
from chat._layout import confirm_shards
from chat._messages import Check, Message, decode_check, decode_cursor, encode_body, time_of
from chat._scripts import CHECK, SEND
from chat.connection import connect
from chat.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["Chat"]


class Chat:
    """A poll-based chat kept in Redis.

    Threads may share one. Each call is one round trip and one atomic script; no call holds a lock.

    Args:
        client: a redis-py client; it is used as it is, its retries included.
        settings: limits and layout; None for the defaults. Reads no environment.
    """

    def __init__(self, client: Redis, *, settings: Settings | None = None) -> None:
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
        client_name, channel_name = name_of("client name", client), name_of("channel name", channel)
        args: tuple[Any, ...] = (
            channel_name,
            client_name,
            os.urandom(8),
            0 if limit is None else at_least(1, "limit", limit, ", or None for all"),
            at_least(0, "history", history),
        )
        if after is not None:
            args += decode_cursor(channel_name, after)
        with suppress(OutOfMemoryError):  # a full Redis without the layout yet: reading goes on
            self._confirm()
        return decode_check(channel_name, CHECK(self._client, self._keys.for_check(channel_name), args))

    def _confirm(self) -> None:
        """Make sure of the layout, before the first call of this object."""
        if not self._confirmed:
            confirm_shards(self._client, self._keys, fix=True)
            self._confirmed = True
