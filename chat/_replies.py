"""What was asked of Redis, and what the replies mean. No I/O."""

from __future__ import annotations

import os
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import OutOfMemoryError

from chat._codec import decode_check, decode_cursor
from chat._errors import ChatFullError, ChecksFailedError, KeyReusedError
from chat._values import Check, Message
from chat.store.entries import UNREADABLE, time_of
from chat.store.keys import LOG_IN_CHECK, decode_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chat.store.scripts import Call

__all__ = ["Checking", "Many", "Sending"]


class Sending(NamedTuple):
    """A message to send."""

    keys: tuple[bytes, ...]
    args: tuple[Any, ...]
    channel: str
    body: Any
    key: str | None
    digests: tuple[bytes, ...]  # of the body, as it may have been stored with the key

    def sent(self, reply: list[Any]) -> Message:
        """Return the message of ``send.lua``'s reply."""
        message_id, sent_ms, *known = reply
        if known and known[0] not in self.digests:
            what = f"key {self.key!r} was used for another body in channel {self.channel!r}"
            message = f"{what}, must be new for each message"
            raise KeyReusedError(message)
        return Message(message_id, time_of(sent_ms), self.body)


class Checking(NamedTuple):
    """A channel to check."""

    keys: tuple[bytes, ...]
    args: tuple[Any, ...]
    channel: bytes

    @property
    def log(self) -> bytes:
        """Name of the channel's log, where its sends are heard."""
        return self.keys[LOG_IN_CHECK]

    def checked(self, replies: list[Any]) -> Check:
        """Return the check of ``check.lua``'s reply."""
        (reply,) = replies
        outcome = _outcome(self.channel, reply)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def again(self, standing: Check) -> Checking:
        """Return the next check of a wait.

        If the caller passed `after`, it continues from this wait's cursor; else from the client's shared position, with
        the cursor as fallback.
        """
        reader, _, *amounts, name, after = self.args
        shared = "?" if after[:1] in {"", "?"} else ""
        cursor = shared + decode_cursor(self.channel, standing.cursor)
        return self._replace(args=(reader, os.urandom(8), *amounts, name, cursor))


class Many(NamedTuple):
    """Several channels to check, a call for some of a shard each."""

    names: Mapping[str, bytes]
    batches: list[list[str]]
    calls: list[Call]

    def checked(self, answers: Iterable[Any]) -> dict[str, Check]:
        """Return the checks of ``check.lua``'s replies.

        Raises:
            ChecksFailedError: there are errors among them.
        """
        checks: dict[str, Check] = {}
        errors: dict[str, Exception] = {}
        for batch, replies in zip(self.batches, answers, strict=True):
            each = repeat(replies) if isinstance(replies, Exception) else replies
            for channel, reply in zip(batch, each, strict=False):
                outcome = _outcome(self.names[channel], reply)
                if isinstance(outcome, Exception):
                    errors[channel] = outcome
                else:
                    checks[channel] = outcome
        if errors:
            raise ChecksFailedError(checks, errors)
        return {channel: checks[channel] for channel in self.names}


def _outcome(channel: bytes, reply: Any) -> Check | Exception:
    """Return the check of what ``check.lua`` says of a channel, or what the caller gets instead."""
    if isinstance(reply, OutOfMemoryError):
        return ChatFullError(
            f"Redis is out of memory, and this client is not known in channel {decode_name(channel)!r} yet: "
            "clean, raise maxmemory, or keep less"
        )
    if isinstance(reply, Exception):
        return reply
    try:
        return decode_check(channel, reply)
    except UNREADABLE as error:  # an entry that something else wrote: other channels keep their messages
        return error
