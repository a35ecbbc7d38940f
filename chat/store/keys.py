"""The keys of the chat in Redis: how it is stored, and the names of all keys.

Channels are spread over shards. All keys of shard ``s`` carry the hash tag ``{s}``, so one script may touch a
channel and the shard's indexes atomically, on one server and on Redis Cluster alike::

    chat:{s}:log:<channel>    LIST    "<sent ms>:<json>", oldest first; the id at index i is trimmed + i + 1
    chat:{s}:updated          ZSET    channel -> ms of its last message             who is idle?
    chat:{s}:sizes            ZSET    channel -> messages stored                    who is over the backlog?
    chat:{s}:heads            ZSET    channel -> ms of its oldest message, or less  who holds messages too old?
    chat:{s}:polled           ZSET    channel -> ms of its clients' oldest check    where may a client have expired?
    chat:{s}:trimmed          HASH    channel -> id of the newest message removed
    chat:{s}:seen:<channel>   ZSET    client  -> ms of its last check
    chat:{s}:read:<channel>   HASH    client  -> "[n]<position> <position before> <token>" of the check that moved it
    chat:{s}:meta             HASH    epoch (random, made once), floor (highest id of any channel removed),
                                      unkept (highest id removed without an archive as the last of its channel),
                                      clients (connected), sent, removed, restored (messages, ever), adjusted (what
                                      a lost key made wrong): sent - removed + restored + adjusted are stored,
                                      done:<index> -> ms when a sweep last found nothing due there
    chat:{s}:sent:0, sent:1   HASH    token -> id of recent sends, in turn; window -> "<ms when it ends> <ms that it
                                      lives>"; go by their TTL
    chat:{s}:lease:<sweep>    STRING  owner of a running sweep; goes by its TTL
    chat:shards               STRING  the number of shards, fixed by the first call
    chat:runs                 HASH    <sweep>:started, :ended, :failed -> "<ms> <report or error>" of the last run,
                                      <sweep>:runs, :failures, :channels, :messages, :clients -> totals
                                      <sweep>:counted -> tokens of the runs counted last
                                      <entry of the beat schedule>:scheduled -> "<ms> " of its last run sent by beat
    chat:celery:pollchat      LIST    tasks that wait; chat:celery:unacked HASH  tasks that a worker holds

A channel exists while it has messages, is not idle, or has clients; `trimmed` has an entry for exactly as long.
The ZSETs are due-indexes: a sweep asks them what is due and touches nothing else.
Time is the server's, in ms. Text is UTF-8, lone surrogates passed through.
"""

from collections.abc import Iterable
from zlib import crc32

__all__ = ["LOG_IN_CHECK", "Keys", "decode_name", "decode_text", "encode_text"]

AFTER_LOG_IN_SEND = ("updated", "sizes", "heads", "polled", "trimmed", "meta", "sent:0", "sent:1")
BEFORE_LOG_IN_CHECK = ("updated", "sizes", "heads", "polled", "trimmed", "meta")
LOG_IN_CHECK = len(BEFORE_LOG_IN_CHECK)  # place of the first channel's log


def encode_text(text: str) -> bytes:
    """Return a name or a body as it stands in Redis."""
    return text.encode("utf-8", "surrogatepass")


def decode_text(stored: bytes) -> str:
    """Return the text that `encode_text` was given."""
    return stored.decode("utf-8", "surrogatepass")


def decode_name(stored: bytes) -> str:
    """Return a name to show, also one that something else wrote and that is no text."""
    try:
        return decode_text(stored)
    except UnicodeDecodeError:
        return stored.decode("utf-8", "backslashreplace")


class Keys:
    """The keys of one chat.

    Args:
        prefix: first part of every key.
        shards: how many shards the channels are spread over.
    """

    def __init__(self, prefix: str, shards: int) -> None:
        self.shards = shards
        self.shards_key = f"{prefix}:shards".encode()
        self.runs = f"{prefix}:runs".encode()
        self._prefixes = [f"{prefix}:{{{shard}}}:".encode() for shard in range(shards)]
        self._send_shard = [self.of_shard(shard, *AFTER_LOG_IN_SEND) for shard in range(shards)]
        self._check_shard = [self.of_shard(shard, *BEFORE_LOG_IN_CHECK) for shard in range(shards)]
        self._check_prefixes = [self.of_shard(shard, "log:", "seen:", "read:") for shard in range(shards)]

    def of_shard(self, shard: int, *names: str) -> tuple[bytes, ...]:
        """Return a shard's keys of the given names, such as ``updated`` or ``lease:clean_channels``."""
        prefix = self._prefixes[shard]
        return tuple(prefix + name.encode() for name in names)

    def of_channels(self, shard: int, channels: list[bytes], *kinds: str) -> tuple[bytes, ...]:
        """Return the keys of each channel in turn, of the given kinds: ``log``, ``seen``, ``read``."""
        prefixes = self.of_shard(shard, *(f"{kind}:" for kind in kinds))
        return tuple(prefix + channel for channel in channels for prefix in prefixes)

    def for_send(self, channel: bytes) -> tuple[bytes, ...]:
        """Return the keys of ``send.lua``."""
        shard = self.shard_of(channel)
        return (self._prefixes[shard] + b"log:" + channel, *self._send_shard[shard])

    def shard_of(self, channel: bytes) -> int:
        """Return the number of a channel's shard."""
        return crc32(channel) % self.shards

    def for_check(self, shard: int, channels: Iterable[bytes]) -> tuple[bytes, ...]:
        """Return the keys of ``check.lua`` for channels of one shard."""
        keys = list(self._check_shard[shard])
        log, seen, read = self._check_prefixes[shard]
        for channel in channels:
            keys += (log + channel, seen + channel, read + channel)
        return tuple(keys)
