"""What holds in every state of the store, by the names in `promises`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from chat.store.keys import Keys
from tests.model.promises import promise
from tests.model.store import Hash, SortedSet

if TYPE_CHECKING:
    from tasks.settings import Settings
    from tests.model.promises import Told
    from tests.model.store import Store

KEYS = Keys("chat", 1)
INDEXES = ("updated", "sizes", "heads", "polled")
LONGEST_WINDOW_MS = 3 * 25_000  # of the tokens in the models
AHEAD_MS = 3_600_000  # a stamp further ahead is of a clock that was wrong


@functools.cache
def key(name: str, channel: str = "") -> bytes:
    """Return a key of the shard, or of a channel."""
    return KEYS.of_channels(0, [channel.encode()], name)[0] if channel else KEYS.of_shard(0, name)[0]


def of_shard(store: Store, name: str, default: Any = None) -> Any:
    return store.values.get(key(name), default)


def of_channel(store: Store, kind: str, channel: str, default: Any = None) -> Any:
    return store.values.get(key(kind, channel), default)


def meta(store: Store) -> dict[str, int]:
    """Return the counts in a shard's meta."""
    fields = of_shard(store, "meta", Hash())
    names = ("sent", "removed", "restored", "adjusted", "clients")
    return {name: int(fields.get(name.encode(), 0)) for name in names}


def log(store: Store, channel: str) -> tuple[bytes, ...]:
    return of_channel(store, "log", channel, ())


def entry(text: bytes) -> tuple[int, int]:
    """Return time and body of an entry of a log."""
    sent_ms, _, body = text.partition(b":")
    return int(sent_ms), int(body)


def stored(store: Store, channel: str) -> dict[int, int]:
    """Return times of what is stored of a channel, by body."""
    return {body: sent_ms for sent_ms, body in map(entry, log(store, channel))}


class Seen:
    """What the store has of a channel."""

    def __init__(self, store: Store, channel: str) -> None:
        name = channel.encode()
        self.entries = [*map(entry, log(store, channel))]
        self.updated, self.size, self.head, self.polled = (
            of_shard(store, index, SortedSet()).get(name) for index in INDEXES
        )
        base = of_shard(store, "trimmed", Hash()).get(name)
        self.base = None if base is None else int(base)
        self.seen = of_channel(store, "seen", channel, SortedSet())
        self.read = of_channel(store, "read", channel, Hash())


def confirm(store: Store, told: Told, channels: tuple[str, ...], settings: Settings) -> None:
    """Hold every promise that is one of a state."""
    looked = {channel: Seen(store, channel) for channel in channels}
    for channel, seen in looked.items():
        _confirm_log(told, channel, seen, settings.hard_backlog)
        if not told.lost or "settled" in told.lost:
            confirm_traces(told, channel, seen)
            confirm_indexes(told, channel, seen)
    _confirm_tokens(store, told)
    if not told.lost:
        _confirm_counters(store, told, looked)
        _confirm_unkept(store, told)


def _confirm_log(told: Told, channel: str, seen: Seen, hard_backlog: int) -> None:
    times = [sent_ms for sent_ms, _ in seen.entries]
    promise("log_sorted", times == sorted(times) or told.back_ms > AHEAD_MS, channel, times)
    promise("limits_hold", not hard_backlog or len(times) <= hard_backlog, channel, "has", len(times))
    bodies, accepted = [body for _, body in seen.entries], told.accepted.get(channel, ())
    promise("exactly_once", len({*bodies}) == len(bodies), channel, "has", bodies)
    promise("exactly_once", bodies == [body for _, body in accepted[len(accepted) - len(bodies) :]], bodies)
    if not told.lost and seen.base is not None:
        ids = [*range(seen.base + 1, seen.base + len(bodies) + 1)]
        given = [message_id for message_id, _ in accepted[len(accepted) - len(bodies) :]]
        promise("ids_stay", ids == given, channel, "has", ids, "for", given)


def confirm_traces(told: Told, channel: str, seen: Seen) -> None:
    """Nothing is kept of what is gone, and all of what is not."""
    stands = channel in told.accepted and channel not in told.gone
    clients = {client.encode() for client, other in told.readers if other == channel}

    def owned(what: str, kept: object, owner: object) -> None:
        promise("no_trace_without_owner", bool(kept) == bool(owner), f"{what} of {channel} is {kept}, owner: {owner}")

    owned("updated", seen.updated is not None, stands)
    owned("sizes", seen.size is not None, stands)
    owned("heads", seen.head is not None, seen.entries)
    owned("trimmed", seen.base is not None, stands or clients)
    owned("polled", seen.polled is not None, clients)
    promise("no_trace_without_owner", {*seen.seen} == clients, channel, "is seen by", {*seen.seen}, "has", clients)
    promise("no_trace_without_owner", {*seen.read} == clients, channel, "is read by", {*seen.read}, "has", clients)


def confirm_indexes(told: Told, channel: str, seen: Seen) -> None:
    """An index hides nothing that is due."""

    def index(what: str, kept: object, score: Any) -> None:
        promise("indexes_true", kept, f"{what} of {channel} is {score}")

    if seen.updated is not None:
        index("updated", seen.updated <= told.idle_ms[channel] + told.back_ms, seen.updated)
        index("sizes", seen.size == len(seen.entries), seen.size)
    if seen.entries:
        index("heads", seen.head <= seen.entries[0][0] + told.back_ms, seen.head)
    if seen.seen:
        index("polled", seen.polled <= min(seen.seen.values()) + told.back_ms, seen.polled)


def _confirm_counters(store: Store, told: Told, looked: dict[str, Seen]) -> None:
    numbers = meta(store)
    total = sum(len(seen.entries) for seen in looked.values())
    counted = numbers["sent"] - numbers["removed"] + numbers["restored"] + numbers["adjusted"]
    promise("counters_true", numbers["sent"] == told.sent, numbers, "of", told.sent)
    promise("counters_true", counted == total, numbers, "for", total)
    promise("counters_true", numbers["clients"] == len(told.readers), numbers, "of", len(told.readers))


def _confirm_tokens(store: Store, told: Told) -> None:
    latest = store.now_ms + told.back_ms + LONGEST_WINDOW_MS
    for name in ("sent:0", "sent:1"):
        if of_shard(store, name):
            ends = store.expires.get(key(name))
            promise("no_trace_without_owner", ends and ends <= latest, name, "goes at", ends, "now is", store.now_ms)


def _confirm_unkept(store: Store, told: Told) -> None:
    fields = of_shard(store, "meta", Hash())
    unkept = int(fields.get(b"unkept") or fields.get(b"floor") or 0)
    promise("unkept_true", unkept >= told.unarchived, "unkept is", unkept, "of", told.unarchived)
