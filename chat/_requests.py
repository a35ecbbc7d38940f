"""Requests of a chat: arguments checked, and encoded for the scripts. No I/O."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from chat._codec import decode_cursor
from chat._errors import InvalidArgumentError
from chat._replies import Checking, Many, Sending
from chat.settings import Settings
from chat.store.arguments import MOST, at_least, name_of, shown
from chat.store.entries import STAMP, canonical, encode_body
from chat.store.keys import Keys
from chat.store.scripts import CHECK, HISTORY, LEAVE, Call

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Requests"]

CHANNELS_PER_CALL = 20  # of a check: with little to tell, under 1 ms of the server's time


class Requests:
    """Validate the arguments of a chat's calls, and build the calls of its scripts.

    Raises:
        InvalidArgumentError: the settings are not a `chat.Settings`.
    """

    def __init__(self, settings: Settings | None) -> None:
        if not (settings is None or isinstance(settings, Settings)):
            message = f"settings are a {type(settings).__name__}, must be chat.Settings(...), or None for the defaults"
            raise InvalidArgumentError(message)
        self.settings = settings = settings or Settings()
        self._dedupe_ms = settings.dedupe_seconds * 1000
        self._longest = settings.max_message_bytes + STAMP
        self.keys = Keys(settings.prefix, settings.shards)

    def send(self, channel: str, body: Any, key: str | None) -> Sending:
        """Return a message to send."""
        name = name_of("channel name", channel)
        encoded = encode_body(body, self.settings.max_message_bytes)
        if key is None:
            token = os.urandom(12)
            digests: tuple[bytes, ...] = (b"",)
        else:
            scope = b"%d:%s" % (len(name), name)
            token = blake2b(scope + name_of("key", key), digest_size=16).digest()
            # The second digest recognises a key that version 1.0.0 may have stored.
            digests = _digest(canonical(encoded)), _digest(encoded)
        args = (name, encoded, token, digests[0], self.settings.hard_backlog, self._dedupe_ms)
        return Sending(self.keys.for_send(name), args, channel, body, key, digests)

    def check(self, client: str, channel: str, limit: int | None, after: str | None, history: int) -> Checking:
        """Return a channel to check."""
        name = name_of("channel name", channel)
        reader = (name_of("client name", client), os.urandom(8), *_amounts(limit, history), self._longest)
        keys = self.keys.for_check(self.keys.shard_of(name), [name])
        return Checking(keys, (*reader, name, decode_cursor(name, after)), name)

    def check_many(
        self, client: str, channels: Iterable[str] | Mapping[str, str | None], limit: int | None, history: int
    ) -> Many:
        """Return several channels to check."""
        if isinstance(channels, str) or not isinstance(channels, Iterable):
            message = f"channels is {shown(channels)}, must be a list of names, or a mapping of names to cursors"
            raise InvalidArgumentError(message)
        pairs = channels.items() if isinstance(channels, Mapping) else zip(channels, repeat(None), strict=False)
        reader = (name_of("client name", client), os.urandom(8), *_amounts(limit, history), self._longest)
        asked = {}
        for channel, after in pairs:
            name = name_of("channel name", channel)
            asked[channel] = (name, decode_cursor(name, after))
        names = {channel: name for channel, (name, _) in asked.items()}
        batches = list(self._by_shard(names))
        calls = [
            Call(
                CHECK,
                self.keys.for_check(shard, [names[channel] for channel in batch]),
                (*reader, *chain.from_iterable(asked[channel] for channel in batch)),
            )
            for shard, batch in batches
        ]
        return Many(names, [batch for _, batch in batches], calls)

    def history(self, channel: str, limit: int | None, before: int | None) -> Call:
        """Return a call of ``history.lua``."""
        name = name_of("channel name", channel)
        at_most = 0 if limit is None else at_least(1, "limit", limit, ", or None for all", most=MOST)
        until = 0 if before is None else at_least(1, "before", before, ", or None for the newest")
        shard = self.keys.shard_of(name)
        keys = self.keys.of_channels(shard, [name], "log") + self.keys.of_shard(shard, "trimmed", "meta")
        return Call(HISTORY, keys, (name, at_most, until, self._longest))

    def clients(self, channel: str) -> tuple[bytes, ...]:
        """Return the keys of a channel's ``seen`` and ``read``."""
        name = name_of("channel name", channel)
        return self.keys.of_channels(self.keys.shard_of(name), [name], "seen", "read")

    def leave(self, client: str, channel: str) -> Call:
        """Return a call of ``leave.lua``."""
        name = name_of("channel name", channel)
        shard = self.keys.shard_of(name)
        keys = self.keys.of_shard(shard, "updated", "polled", "trimmed", "meta")
        keys += self.keys.of_channels(shard, [name], "log", "seen", "read")
        return Call(LEAVE, keys, (name, name_of("client name", client)))

    def indexes(self) -> list[bytes]:
        """Return the index of the channels of each shard."""
        return [self.keys.of_shard(shard, "updated")[0] for shard in range(self.keys.shards)]

    def _by_shard(self, names: Mapping[str, bytes]) -> Iterator[tuple[int, list[str]]]:
        """Yield the channels of each shard, as many as one call takes."""
        shards: dict[int, list[str]] = defaultdict(list)
        for channel, name in names.items():
            shards[self.keys.shard_of(name)].append(channel)
        for shard, channels in shards.items():
            for start in range(0, len(channels), CHANNELS_PER_CALL):
                yield shard, channels[start : start + CHANNELS_PER_CALL]


def _digest(encoded: bytes) -> bytes:
    return blake2b(encoded, digest_size=16).hexdigest().encode()


def _amounts(limit: int | None, history: int) -> tuple[int, int]:
    """Return a check's limit, 0 for none, and its history."""
    limited = 0 if limit is None else at_least(1, "limit", limit, ", or None for all", most=MOST)
    return limited, at_least(0, "history", history, most=MOST)
