"""The Redis commands that the scripts use, in memory. `test_store` holds each of them against real servers.

Values are never changed in place: a command puts a new one. So a copy of a state shares all values with it, and each
value keeps its hash.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FLOAT = re.compile(rb"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?", re.IGNORECASE)
INTEGER = re.compile(rb"0|-?[1-9]\d{0,18}")


class ReplyError(Exception):
    """What a server answers to a command that it refuses."""


class Status(bytes):
    """A simple string, such as OK."""

    __slots__ = ()


class Hash(dict):
    """A value of the type hash."""

    _hash: int | None = None

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self.items()))
        return self._hash


class SortedSet(Hash):
    """A value of the type zset: member -> score."""

    _ranked: tuple[bytes, ...] | None = None

    def ranked(self) -> tuple[bytes, ...]:
        if self._ranked is None:
            self._ranked = tuple(sorted(self, key=lambda member: (self[member], member)))
        return self._ranked


Value = bytes | tuple[bytes, ...] | Hash
EMPTY: dict[type, Any] = {tuple: (), Hash: Hash(), SortedSet: SortedSet()}


class Store:
    """The state of a server, and its clock.

    Args:
        values: by key.
        expires: ms since 1970 at which a key goes, by key.
        now_ms: what its clock says; only the owner moves it.
    """

    def __init__(self, values: dict[bytes, Any], expires: dict[bytes, int], now_ms: int) -> None:
        self.values, self.expires, self.now_ms = dict(values), dict(expires), now_ms

    def set_clock(self, now_ms: int) -> None:
        self.now_ms = now_ms
        for key in [key for key, moment in self.expires.items() if now_ms > moment]:
            self.drop(key)

    def drop(self, key: bytes) -> bool:
        self.expires.pop(key, None)
        return self.values.pop(key, None) is not None

    def execute(self, name: bytes, *args: bytes) -> Any:
        """Run a command; its words are bytes.

        Raises:
            ReplyError: the server would refuse it.
            NotImplementedError: the store does not know it.
        """
        try:
            command, _ = COMMANDS[name]
        except KeyError:
            raise NotImplementedError(name) from None
        return command(self, *args)

    def get(self, key: bytes, kind: type) -> Any:
        value = self.values.get(key)
        if value is None:
            return EMPTY.get(kind)
        if type(value) is not kind:
            problem = "WRONGTYPE Operation against a key holding the wrong kind of value"
            raise ReplyError(problem)
        return value

    def put(self, key: bytes, value: Any) -> None:
        if value:
            self.values[key] = value
        else:
            self.drop(key)


Command = tuple["Callable[..., Any]", bool]
COMMANDS: dict[bytes, Command] = {}  # by name: what it does, and whether it writes


def command(*, writes: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        COMMANDS[function.__name__.upper().encode()] = (function, writes)
        return function

    return register


reads, writes = command(writes=False), command(writes=True)


def integer(word: bytes) -> int:
    if not INTEGER.fullmatch(word) or not -(2**63) <= int(word) < 2**63:
        problem = "ERR value is not an integer or out of range"
        raise ReplyError(problem)
    return int(word)


def double(word: bytes, what: str = "value") -> float:
    if not FLOAT.fullmatch(word):
        problem = f"ERR {what} is not a valid float"
        raise ReplyError(problem)
    return float(word)


def shown(score: float) -> bytes:
    return b"%.17g" % score


def span(start: bytes, stop: bytes, length: int) -> slice:
    """Return what LRANGE and ZRANGE mean by two indexes, which may count from the end."""
    first, last = (index + length if index < 0 else index for index in (integer(start), integer(stop)))
    return slice(max(first, 0), max(last + 1, 0))


# Keys


@reads
def time(store: Store) -> list[bytes]:
    return [b"%d" % (store.now_ms // 1000), b"%d" % (store.now_ms % 1000 * 1000)]


@reads
def exists(store: Store, *keys: bytes) -> int:
    return sum(key in store.values for key in keys)


@writes
def unlink(store: Store, *keys: bytes) -> int:
    return sum(store.drop(key) for key in keys)


COMMANDS[b"DEL"] = (unlink, True)


@reads
def pttl(store: Store, key: bytes) -> int:
    if key not in store.values:
        return -2
    return store.expires[key] - store.now_ms if key in store.expires else -1


@writes
def pexpireat(store: Store, key: bytes, moment: bytes) -> int:
    if key not in store.values:
        return 0
    if integer(moment) <= store.now_ms:
        store.drop(key)
    else:
        store.expires[key] = integer(moment)
    return 1


@writes
def pexpire(store: Store, key: bytes, milliseconds: bytes) -> int:
    return pexpireat(store, key, b"%d" % (store.now_ms + integer(milliseconds)))


@writes
def spublish(store: Store, channel: bytes, message: bytes) -> int:  # noqa: ARG001
    return 0


# Strings


@reads
def get(store: Store, key: bytes) -> bytes | None:
    return store.get(key, bytes)


@writes
def set(store: Store, key: bytes, value: bytes, *options: bytes) -> Status | None:  # noqa: A001  of Redis
    names = [option for option in options if not option.isdigit()]
    if names not in ([], [b"NX"], [b"PX"], [b"NX", b"PX"]):
        raise NotImplementedError(options)
    if b"NX" in options and key in store.values:
        return None
    store.expires.pop(key, None)
    store.values[key] = value
    if b"PX" in options:
        store.expires[key] = store.now_ms + integer(options[-1])
    return Status(b"OK")


# Lists


@reads
def llen(store: Store, key: bytes) -> int:
    return len(store.get(key, tuple))


@reads
def lindex(store: Store, key: bytes, index: bytes) -> bytes | None:
    entries, place = store.get(key, tuple), integer(index)
    return entries[place] if -len(entries) <= place < len(entries) else None


@reads
def lrange(store: Store, key: bytes, start: bytes, stop: bytes) -> list[bytes]:
    entries = store.get(key, tuple)
    return list(entries[span(start, stop, len(entries))])


@writes
def ltrim(store: Store, key: bytes, start: bytes, stop: bytes) -> Status:
    entries = store.get(key, tuple)
    store.put(key, entries[span(start, stop, len(entries))])
    return Status(b"OK")


@writes
def rpush(store: Store, key: bytes, *entries: bytes) -> int:
    store.values[key] = store.get(key, tuple) + entries
    return len(store.values[key])


@writes
def lpush(store: Store, key: bytes, *entries: bytes) -> int:
    store.values[key] = entries[::-1] + store.get(key, tuple)
    return len(store.values[key])


# Hashes


@reads
def hget(store: Store, key: bytes, field: bytes) -> bytes | None:
    return store.get(key, Hash).get(field)


@reads
def hmget(store: Store, key: bytes, *fields: bytes) -> list[bytes | None]:
    return [*map(store.get(key, Hash).get, fields)]


@reads
def hexists(store: Store, key: bytes, field: bytes) -> int:
    return int(field in store.get(key, Hash))


@reads
def hlen(store: Store, key: bytes) -> int:
    return len(store.get(key, Hash))


@writes
def hset(store: Store, key: bytes, *pairs: bytes) -> int:
    before = store.get(key, Hash)
    store.values[key] = after = Hash(before)
    after.update(zip(pairs[::2], pairs[1::2], strict=True))
    return len(after) - len(before)


@writes
def hsetnx(store: Store, key: bytes, field: bytes, value: bytes) -> int:
    return 0 if field in store.get(key, Hash) else hset(store, key, field, value)


@writes
def hdel(store: Store, key: bytes, *fields: bytes) -> int:
    return _taken(store, key, Hash, fields)


@writes
def hincrby(store: Store, key: bytes, field: bytes, amount: bytes) -> int:
    step = integer(amount)
    stored = store.get(key, Hash).get(field, b"0")
    if not INTEGER.fullmatch(stored):
        problem = "ERR hash value is not an integer"
        raise ReplyError(problem)
    total = int(stored) + step
    hset(store, key, field, b"%d" % total)
    return total


# Sorted sets


@reads
def zcard(store: Store, key: bytes) -> int:
    return len(store.get(key, SortedSet))


@reads
def zscore(store: Store, key: bytes, member: bytes) -> bytes | None:
    return zmscore(store, key, member)[0]


@reads
def zmscore(store: Store, key: bytes, *members: bytes) -> list[bytes | None]:
    scores = map(store.get(key, SortedSet).get, members)
    return [None if score is None else shown(score) for score in scores]


@reads
def zcount(store: Store, key: bytes, low: bytes, high: bytes) -> int:
    within = _within(low, high)
    return sum(map(within, store.get(key, SortedSet).values()))


@reads
def zrange(store: Store, key: bytes, start: bytes, stop: bytes, *options: bytes) -> list[bytes]:
    with_scores = options[-1:] == (b"WITHSCORES",)
    options = options[: len(options) - with_scores]
    within = _within(start, stop) if options[:1] == (b"BYSCORE",) else None
    scores = store.get(key, SortedSet)
    members = scores.ranked()
    if within:
        members = tuple(member for member in members if within(scores[member]))
        if options[1:2] == (b"LIMIT",):
            skip, count = integer(options[2]), integer(options[3])
            members = members[skip:][: count if count >= 0 else None] if skip >= 0 else ()
            options = options[3:]
        options = options[1:]
    else:
        members = members[span(start, stop, len(members))]
    if options:
        raise NotImplementedError(options)
    return [*_paired(scores, members)] if with_scores else [*members]


@reads
def zrevrange(store: Store, key: bytes, start: bytes, stop: bytes) -> list[bytes]:
    members = store.get(key, SortedSet).ranked()[::-1]
    return [*members[span(start, stop, len(members))]]


@reads
def zscan(store: Store, key: bytes, cursor: bytes, *options: bytes) -> list[Any]:  # noqa: ARG001
    scores = store.get(key, SortedSet)
    return [b"0", [*_paired(scores, scores.ranked())]]


@writes
def zadd(store: Store, key: bytes, *words: bytes) -> int:
    options: list[bytes] = []
    while words and words[0] in {b"NX", b"GT", b"CH", b"LT"}:
        options.append(words[0])
        words = words[1:]
    given = [double(score) for score in words[::2]]
    before = store.get(key, SortedSet)
    after = SortedSet(before)
    added = changed = 0
    for score, member in zip(given, words[1::2], strict=True):
        known = after.get(member)
        kept = known is not None and (
            b"NX" in options or (b"GT" in options and score <= known) or (b"LT" in options and score >= known)
        )
        if not kept:
            added += known is None
            changed += known != score
            after[member] = score
    if changed:
        store.values[key] = after
    return changed if b"CH" in options else added


@writes
def zincrby(store: Store, key: bytes, amount: bytes, member: bytes) -> bytes:
    step = double(amount)
    scores = store.get(key, SortedSet)
    total = scores.get(member, 0.0) + step
    if math.isnan(total):
        problem = "ERR resulting score is not a number (NaN)"
        raise ReplyError(problem)
    store.values[key] = after = SortedSet(scores)
    after[member] = total
    return shown(total)


@writes
def zrem(store: Store, key: bytes, *members: bytes) -> int:
    return _taken(store, key, SortedSet, members)


def _taken(store: Store, key: bytes, kind: Any, names: tuple[bytes, ...]) -> int:
    """Take entries out of a hash or a sorted set; return how many there were."""
    before = store.get(key, kind)
    after = kind((name, value) for name, value in before.items() if name not in names)
    store.put(key, after)
    return len(before) - len(after)


def _paired(scores: SortedSet, members: tuple[bytes, ...]) -> Iterator[bytes]:
    for member in members:
        yield member
        yield shown(scores[member])


def _within(low: bytes, high: bytes) -> Callable[[float], bool]:
    least, most = (double(word.removeprefix(b"("), "min or max") for word in (low, high))
    above, below = low.startswith(b"("), high.startswith(b"(")
    return lambda score: (least < score if above else least <= score) and (score < most if below else score <= most)
