"""What may happen next: each action changes a world, and holds what it sees against the promises."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from redis.exceptions import OutOfMemoryError, RedisError

from chat import ChatError, ChatFullError, ChecksFailedError, KeyReusedError
from chat._requests import Requests
from chat.store.entries import decode_slice
from chat.store.scripts import CHECK, SEND, call_all, out_of_memory
from tasks.cleaning import SWEEPS
from tasks.cleaning.calls import LEASE_MS
from tasks.cleaning.rules import Limits
from tests.model import states
from tests.model.calls import Client, Sweep, fixed, stepped
from tests.model.promises import BrokenError, Request, promise
from tests.model.store import Hash, Store

if TYPE_CHECKING:
    from chat import Check
    from tasks.cleaning import Report
    from tasks.settings import Settings
    from tests.model.promises import Told

AHEAD_MS = states.AHEAD_MS
TOKENS = 6
OF_LOST_TIME = -1  # what a cursor accounts for that was given after the snapshot that came back
CHECKS = 3  # each puts one of three indexes right


class ImpossibleError(Exception):
    """Raised where an action has no meaning in this state."""


@dataclass(frozen=True)
class Snapshot:
    """What a server saved to its disk, and what callers knew then."""

    values: dict[bytes, Any]
    expires: dict[bytes, int]
    told: Told

    def key(self) -> Any:
        return frozenset(self.values.items()), frozenset(self.expires.items()), self.told.key()


@dataclass
class World:
    """A state that an action may change.

    Attributes:
        store: the server.
        told: what callers know.
        settings: of everybody.
        channels: names.
        full: whether the server is out of memory.
        sweeps: those on their way, by number.
        saved: a snapshot, where one was made.
        mutate: what to make of the scripts.
    """

    store: Store
    told: Told
    settings: Settings
    channels: tuple[str, ...]
    full: bool
    sweeps: dict[int, Sweep]
    saved: Snapshot | None = None
    mutate: Any = None

    @property
    def client(self) -> Any:
        return Client(self.store, full=self.full, mutate=self.mutate)

    @property
    def requests(self) -> Requests:
        return requests_of(self.settings)

    def stored(self) -> dict[str, dict[int, int]]:
        return {channel: states.stored(self.store, channel) for channel in self.channels}


requests_of = functools.cache(Requests)
Run = Callable[[World], None]


@dataclass(frozen=True)
class Action:
    """Something that may happen.

    Attributes:
        label: for the trace.
        run: does it.
        budget: the name of what it uses up; empty where it may happen at any time.
    """

    label: str
    run: Run
    budget: str = ""


def needs(fact: object) -> None:
    if not fact:
        raise ImpossibleError


@contextmanager
def succeeding(what: str) -> Iterator[None]:
    """Redis must not refuse what is done here."""
    try:
        yield
    except ChatError:
        raise
    except RedisError as error:
        raise BrokenError(*("no_error", f"{what}: {error}")) from error


def unchanged(world: World, before: dict[bytes, Any], name: str, why: str) -> None:
    promise(name, world.store.values == before, why, "changed something")


# Sending


def send(channel: str, key: str = "", **overrides: Any) -> Action:
    """A message, with a token or key that is used for the first time; by a process with other settings."""

    def run(world: World) -> None:
        settings = replace(world.settings, **overrides)
        needs((channel, key) not in world.told.sends or not key)
        before, values = world.stored(), dict(world.store.values)
        body = world.told.sent + 1
        try:
            message = sent(world, channel, body, key, settings)
        except ChatFullError:
            promise("no_error", world.full, "told that the server is full")
            unchanged(world, values, "full_stores_nothing", "a refused send")
            return
        promise("full_stores_nothing", not world.full, "accepted")
        world.told.accept(channel, key, message, settings.dedupe_seconds * 1000)
        at = states.of_shard(world.store, "updated", {}).get(channel.encode())
        ends = [world.store.expires.get(states.key(name), 0) for name in ("sent:0", "sent:1")]
        latest = world.store.now_ms + AHEAD_MS + states.LONGEST_WINDOW_MS
        promise("no_trace_without_owner", max(ends) <= latest, "tokens live until", ends)
        promise("indexes_true", at == world.told.idle_ms[channel], "updated of", channel, "is", at)
        after = world.stored()
        promise("exactly_once", body in after[channel], body, "is not in", after)
        cap = world.settings.hard_backlog
        for other in world.channels:
            kept = [*before[other], *([body] if other == channel else [])]
            dropped = len(kept) - cap if cap and other == channel and len(kept) > cap else 0
            promise("nothing_lost", kept[dropped:] == [*after[other]], "a send leaves", after[other], "of", kept)

    return Action(" ".join(filter(None, ("send", channel, key, *map(str, overrides.items())))), run, "send")


def send_again(channel: str, key: str = "") -> Action:
    """The last send, carried out once more since its reply was lost."""

    def run(world: World) -> None:
        first = world.told.sends.get((channel, key))
        needs(first and first.left_ms and not world.full and not world.told.lost)
        before = dict(world.store.values)
        try:
            message = sent(world, channel, first.body, key)
        except KeyReusedError as error:
            raise BrokenError(*("exactly_once", str(error))) from error
        promise("exactly_once", message.id == first.id, "id", message.id, "instead of", first.id)
        unchanged(world, before, "exactly_once", "a repeated send")

    return Action(f"send {channel} {key}".rstrip() + " again", run)


def send_other(channel: str, key: str) -> Action:
    """Another body with a key that was used."""

    def run(world: World) -> None:
        first = world.told.sends.get((channel, key))
        needs(first and first.left_ms and not world.full and not world.told.lost)
        before = dict(world.store.values)
        try:
            sent(world, channel, -1, key)
        except KeyReusedError:
            unchanged(world, before, "key_is_of_one_body", "a refused send")
        else:
            promise("key_is_of_one_body", kept=False)

    return Action(f"send {channel} {key} another body", run)


def sent(world: World, channel: str, body: int, key: str, settings: Settings | None = None) -> Any:
    with fixed(b"send %d" % body):
        sending = requests_of(settings or world.settings).send(channel, body, key or None)
    with succeeding("send"):
        try:
            reply = SEND(world.client, sending.keys, sending.args)
        except OutOfMemoryError as error:  # as chat.waiting.transport does
            raise out_of_memory() from error
    return sending.sent(reply)


# Checking


def check(
    client: str, *channels: str, limit: int | None = None, after: str = "", history: int = 0, again: bool = False
) -> Action:
    """A check of some channels: `after` is "" or the cursor "now" or "before"; `again` repeats the last call."""
    words = (channels, limit, after, history)
    if again:
        return Action(f"{client} checks {'+'.join(channels)} again", lambda world: check_again(world, client, channels))
    extra = " ".join(filter(None, (limit and f"limit {limit}", after and f"after {after}", history and "history")))
    label = f"{client} checks {'+'.join(channels)} {extra}".rstrip()
    return Action(label, lambda world: check_afresh(world, client, words), "check")


def check_afresh(world: World, client: str, words: tuple[Any, ...]) -> None:
    channels, limit, after, history = words
    told = world.told
    cursors: list[str | None] = [None] * len(channels)
    if after:
        known = [told.cursors.get((client, channel), ()) for channel in channels]
        needs(all(len(each) > (after == "before") for each in known))
        cursors = [each[0 if after == "before" else -1].text for each in known]
    token = fresh_token(told, [(client, channel) for channel in channels])
    checked(world, client, (channels, limit, tuple(cursors), history), token, again=False)


def fresh_token(told: Told, places: list[tuple[str, str]]) -> int:
    """Return a token that none of these checks had which the server may know; few, so that states come again.

    Their remainders by three come in turn: a check looks after another index for each.
    """
    used = {told.asked[place].token for place in places if place in told.asked}
    used |= {told.readers[place].token for place in places if place in told.readers}
    last = told.asked[places[0]].token if places[0] in told.asked else TOKENS - 1
    turns = [(last + turn) % TOKENS for turn in range(1, TOKENS + 1)]
    return next(turn for turn in turns if turn not in used)


def check_again(world: World, client: str, channels: tuple[str, ...]) -> None:
    told = world.told
    needs(not told.lost and all((client, channel) in told.asked for channel in channels))
    first, *others = [told.asked[client, channel] for channel in channels]
    needs(first.words[0] == channels and all(other[:2] == first[:2] for other in others))
    checked(world, client, first.words, first.token, again=True)


def checked(world: World, client: str, words: tuple[Any, ...], token: int, *, again: bool) -> None:
    channels, limit, cursors, history = words
    told, values, before = world.told, dict(world.store.values), world.stored()
    expected = {}
    for channel, cursor in zip(channels, cursors, strict=True):
        place = (client, channel)
        start, new = expect(world, place, cursor, history, again=again)
        expected[channel] = Request(world.store.now_ms, token, words, start, new, limit, cursor is not None)
    known = {channel for channel in channels if (client, channel) in told.readers}
    bases = states.of_shard(world.store, "trimmed", {})
    with fixed(bytes([token]) * 8):
        if len(channels) == 1:
            one = world.requests.check(client, channels[0], limit, cursors[0], history)
        else:
            many = world.requests.check_many(client, dict(zip(channels, cursors, strict=True)), limit, history)
    try:
        with succeeding("check"):
            if len(channels) == 1:
                found = {channels[0]: one.checked(CHECK(world.client, one.keys, one.args))}
            else:
                found = many.checked(call_all(world.client, many.calls))
    except (ChatFullError, ChecksFailedError) as error:
        refused = error.errors if isinstance(error, ChecksFailedError) else dict.fromkeys(channels, error)
        promise("no_error", world.full or told.lost, refused)
        promise("full_stores_nothing", not known & refused.keys() or told.lost, "known clients are refused", refused)
        found = error.checks if isinstance(error, ChecksFailedError) else {}
        if not found:
            unchanged(world, values, "full_stores_nothing", "a refused check")
    promise("full_stores_nothing", not world.full or {*found} <= known or told.lost, "a new client is stored")
    promise("nothing_lost", before == world.stored(), "a check removes messages")
    for channel, reply in found.items():
        confirm_lost_time(told, (client, channel), cursors[channels.index(channel)], reply, bases.get(channel.encode()))
        asked = told.asked.get((client, channel))
        told.read((client, channel), reply, expected[channel])
        if again and asked:
            upto = max(asked.upto, len(told.bodies(channel)) - len(before[channel]))
            same = reply.new == asked.new and (told.asked[client, channel].upto == upto or not asked.moved)
            promise("repeat_is_same", same, reply, "after", asked)
            told.asked[client, channel] = told.asked[client, channel]._replace(moved=asked.moved)


def confirm_lost_time(told: Told, place: tuple[str, str], cursor: str | None, reply: Check, base: bytes | None) -> None:
    """A cursor of a time that is lost is not believed while its id is stored, or was not given again."""
    if cursor and any(known == (cursor, OF_LOST_TIME) for known in told.cursors[place]):
        sent_ms, position = map(int, cursor.split("-")[2:])
        told_apart = sent_ms and position > int(base or 0)  # a message that was gone has left no time in its cursor
        promise("never_falsely_caught_up", reply.new or not told_apart, cursor, "is believed")


def expect(world: World, place: tuple[str, str], cursor: str | None, history: int, *, again: bool) -> tuple[int, bool]:
    """Return what is accounted for before a check, and whether the client is new."""
    told = world.told
    if again:
        return told.asked[place].start, told.asked[place].new
    if cursor is not None:
        upto = next(known.upto for known in told.cursors[place] if known.text == cursor)
        return len(told.bodies(place[1])) if upto == OF_LOST_TIME else upto, False
    if place in told.readers:
        return told.readers[place].upto, False
    count = len(states.log(world.store, place[1]))
    return len(told.bodies(place[1])) - min(history, count), True


def leave(client: str, channel: str) -> Action:
    def run(world: World) -> None:
        before = world.stored()
        call = world.requests.leave(client, channel)
        with succeeding("leave"):
            call.script(world.client, call.keys, call.args)
        promise("nothing_lost", before == world.stored(), "leaving removes messages")
        world.told.forget(client, channel)

    return Action(f"{client} leaves {channel}", run, "leave")


def read_history(world: World) -> None:
    """Listings show what is stored, and change nothing."""
    before = dict(world.store.values)
    for channel in world.channels:
        bodies = [*states.stored(world.store, channel)]
        for limit in (None, 1):
            call = world.requests.history(channel, limit, None)
            found = decode_slice(*call.script(world.client, call.keys, call.args))
            expected = bodies if limit is None else bodies[-1:]
            promise("nothing_lost", [message.body for message in found] == expected, "history is", found)
            if not world.told.lost:
                known = {body: message_id for message_id, body in world.told.accepted.get(channel, ())}
                promise("ids_stay", all(known[message.body] == message.id for message in found), found)
    if not world.told.lost:
        unchanged(world, before, "nothing_lost", "reading the history")


# The server


def clock(label: str, milliseconds: int, budget: str = "clock") -> Action:
    def run(world: World) -> None:
        world.store.set_clock(world.store.now_ms + milliseconds)
        told, now_ms = world.told, world.store.now_ms
        told.wait(max(0, milliseconds))
        if milliseconds < 0:
            told.back_ms -= milliseconds
            for place, reader in told.readers.items():  # of a clock that was wrong: they count as now
                if reader.checked_ms > now_ms + AHEAD_MS:
                    told.readers[place] = reader._replace(checked_ms=now_ms)
            for channel, idle_ms in told.idle_ms.items():
                if idle_ms > now_ms + AHEAD_MS:
                    told.idle_ms[channel] = now_ms

    return Action(f"clock {label}", run, budget)


def fill() -> Action:
    def run(world: World) -> None:
        world.full = not world.full

    return Action("memory is full, or not any more", run, "full")


def lose(name: str, channel: str = "", *, budget: str = "loss") -> Action:
    """One key is lost: of the shard, or of a channel."""
    key = states.key(name, channel)

    def run(world: World) -> None:
        needs(key in world.store.values)
        told = world.told
        if name == "meta":  # with it the floor: what is gone begins anew, in another epoch
            known = states.of_shard(world.store, "trimmed", {})
            for other in {*told.accepted} - {channel.decode() for channel in known}:
                told.accepted[other] = tuple((0, body) for _, body in told.accepted[other])
        world.store.drop(key)
        world.told.lost |= {name}

    return Action(f"lose {key.decode()}", run, budget)


def save() -> Action:
    """The server saves a snapshot."""

    def run(world: World) -> None:
        needs(world.saved is None and not world.told.lost)
        world.saved = Snapshot(dict(world.store.values), dict(world.store.expires), world.told.copy())

    return Action("snapshot", run)


def come_back() -> Action:
    """The server starts from its snapshot, a moment later."""

    def run(world: World) -> None:
        needs(world.saved and not world.sweeps)
        told, store = world.saved.told.copy(), world.store
        for (client, channel), cursors in world.told.cursors.items():
            count = len(told.bodies(channel))
            told.cursors[client, channel] = tuple(
                cursor if cursor.upto <= count else cursor._replace(upto=OF_LOST_TIME) for cursor in cursors
            )
        told.sent, told.lost = world.told.sent, frozenset({"snapshot"})
        world.told, world.store = told, Store(world.saved.values, world.saved.expires, store.now_ms)
        world.store.set_clock(store.now_ms + 1)

    return Action("the snapshot comes back", run, "loss")


def settle(client: str) -> Action:
    """Each channel is sent to and checked as often as mending takes; then all is right but what was lost."""

    def run(world: World) -> None:
        needs(world.told.lost and not world.sweeps and not world.full)
        told = world.told
        for channel in world.channels:
            send(channel).run(world)
            clients = {other for other, of in told.readers if of == channel} | {client}
            for other in [*sorted(clients)] * CHECKS:
                check(other, channel).run(world)
        told.lost |= {"settled"}
        for channel in world.channels:
            try:
                seen = states.Seen(world.store, channel)
                states.confirm_traces(told, channel, seen)
                states.confirm_indexes(told, channel, seen)
            except BrokenError as error:
                raise BrokenError(*("mended", str(error))) from error

    return Action("settle", run, "settle")


# Sweeping


def sweep(name: str, **overrides: Any) -> Action:
    """A whole sweep at once, after a dry run of it."""

    def run(world: World) -> None:
        others = {other.name for other in world.sweeps.values()}
        needs(name not in others and Sweep(name).lease_key not in world.store.values)
        values = dict(world.store.values)
        expected = swept(world, name, dry_run=True, **overrides)
        unchanged(world, values, "dry_run_is_run", "a dry run")
        before, readers = world.stored(), dict(states_of_readers(world))
        report = swept(world, name, **overrides)
        if not world.told.lost:
            for field in ("channels", "messages", "clients"):
                told, done = getattr(expected, field), getattr(report, field)
                promise("dry_run_is_run", told == done, field, "was told as", told, "is", done)
            promise("no_error", not report.error, report.error)
        judge(world, Sweep(name, tuple(overrides.items())), before, readers, values)
        promise("lease_given_back", Sweep(name).lease_key not in world.store.values)
        due = swept(world, name, dry_run=True, **overrides)
        again = (due.due, due.channels, due.messages, due.clients) if not world.told.lost else (due.messages,)
        promise("due_is_removed", not any(again) or world.told.back_ms, again, "is still due")
        confirm_times(world, name)
        confirm_done(world, name, overrides)

    return Action(f"{name} {overrides or ''}".rstrip(), run, "sweep")


def swept(world: World, name: str, **options: Any) -> Report:
    with fixed(b"whole"), succeeding(name):
        return SWEEPS[name](world.client, settings=world.settings, **options)


def confirm_times(world: World, name: str) -> None:
    """After a sweep no time in its index is of a clock that was wrong: nothing would ever be due by it."""
    index = {"clean_channels": "updated", "clean_clients": "polled"}.get(name, "sizes")
    times = states.of_shard(world.store, index, {}).values()
    promise("indexes_true", max(times, default=0) <= world.store.now_ms + AHEAD_MS, index, "has", [*times])


def confirm_done(world: World, name: str, overrides: dict[str, Any]) -> None:
    """By what callers know nothing is due: no index hid it."""
    told, now_ms, limits = world.told, world.store.now_ms, Limits.of(world.settings, overrides)
    if told.lost or told.back_ms:
        return
    if name == "clean_channels":
        idle = [channel for channel in told.accepted if channel not in told.gone]
        idle = [channel for channel in idle if now_ms - told.idle_ms[channel] >= limits.channel_timeout]
        promise("due_is_removed", not idle, idle, "are still there")
    elif name == "clean_backlog":
        for channel, messages in world.stored().items():
            old = [ms for ms in messages.values() if limits.message_timeout and now_ms - ms >= limits.message_timeout]
            promise("due_is_removed", len(messages) <= limits.backlog and not old, channel, "still has", messages)
    else:
        expired = [
            place for place, reader in told.readers.items() if now_ms - reader.checked_ms >= limits.client_timeout
        ]
        promise("due_is_removed", not expired, expired, "are still there")


def begin(name: str, number: int, *, archives: str = "", **overrides: Any) -> Action:
    """A sweep begins, in steps."""

    def run(world: World) -> None:
        started = Sweep(name, tuple(overrides.items()), archives, number)
        advance(world, started)

    return Action(f"{name} {number} begins", run, f"begin {number}")


def step(number: int) -> Action:
    """A sweep that began takes its next step."""

    def run(world: World) -> None:
        needs(number in world.sweeps)
        advance(world, world.sweeps[number])

    return Action(f"sweep {number} goes on", run)


def crash(number: int) -> Action:
    """A sweep is killed."""

    def run(world: World) -> None:
        needs(number in world.sweeps)
        del world.sweeps[number]

    return Action(f"sweep {number} is killed", run, "crash")


def retry(number: int) -> Action:
    """The connection of a sweep breaks: what it sent last is sent again."""

    def run(world: World) -> None:
        needs(number in world.sweeps)
        on_its_way = world.sweeps[number]
        needs(on_its_way.sent < len(on_its_way.replies) and on_its_way.kept is None)
        world.sweeps[number] = replace(on_its_way, replies=on_its_way.replies[: on_its_way.sent])

    return Action(f"sweep {number} sends again", run, "retry")


def advance(world: World, on_its_way: Sweep) -> None:
    before, readers, values = world.stored(), states_of_readers(world), dict(world.store.values)
    with succeeding(on_its_way.name):
        result = stepped(world.store, on_its_way, world.settings, full=world.full, mutate=world.mutate)
    judge(world, on_its_way, before, readers, values)
    leases = [stored.get(on_its_way.lease_key) for stored in (values, world.store.values)]
    taken = leases[0] not in {None, on_its_way.owner, leases[1]}
    promise("only_owner_removes", not taken, "the lease was", leases[0], "and is", leases[1])
    if leases[1] == on_its_way.owner and world.stored() != before:
        left_ms = world.store.expires[on_its_way.lease_key] - world.store.now_ms
        promise("lease_lasts", left_ms == LEASE_MS, "it lasts for", left_ms, "ms")
    if isinstance(result, Sweep):
        world.sweeps[on_its_way.number] = result
        if result.kept:
            hand_over(world, *result.kept)
        return
    world.sweeps.pop(on_its_way.number, None)
    if not world.told.lost:
        lost_lease = "lease was lost" in result.error
        refused = on_its_way.archives == "broken_archive"
        promise("no_error", not result.error or lost_lease or refused, result.error)
    left = world.store.values.get(on_its_way.lease_key) == on_its_way.owner
    promise("lease_given_back", not left, result)


def hand_over(world: World, channel: str, messages: tuple[Any, ...]) -> None:
    told = world.told
    if not told.lost:
        known = {body: message_id for message_id, body in told.accepted[channel]}
        right = all(known.get(message.body) == message.id for message in messages)
        promise("archive_covers_removed", right, "archived is", messages)
    told.archived |= {message.body for message in messages}


def states_of_readers(world: World) -> dict[str, set[str]]:
    return {
        channel: {name.decode() for name in states.of_channel(world.store, "read", channel, Hash())}
        for channel in world.channels
    }


@functools.cache
def limits_of(settings: Settings, overrides: tuple[tuple[str, Any], ...]) -> Limits:
    return Limits.of(settings, dict(overrides))


def judge(
    world: World,
    by: Sweep,
    before: dict[str, dict[int, int]],
    readers: dict[str, set[str]],
    values: dict[bytes, Any],
) -> None:
    """What a sweep removed was due by its own limits at that moment, and its lease was held."""
    limits, now_ms, told = limits_of(world.settings, by.overrides), world.store.now_ms, world.told
    after, readers_after = world.stored(), states_of_readers(world)
    removed = False
    for channel in world.channels:
        kept = after[channel]
        gone = [body for body in before[channel] if body not in kept]
        promise("nothing_lost", [*before[channel]][len(gone) :] == [*kept], channel, "has", kept)
        was, stays = channel in updated(values), channel in updated(world.store.values)
        left = readers[channel] - readers_after[channel]
        removed = removed or bool(gone) or was != stays or bool(left)
        if by.name == "clean_channels":
            idle = now_ms - told.idle_ms.get(channel, 0) >= limits.channel_timeout
            promise("only_due_removed", idle or not (gone or was != stays), channel, "was not idle")
        elif by.name == "clean_backlog":
            over = max(0, len(before[channel]) - limits.backlog)
            ages = [now_ms - before[channel][body] for body in gone[over:]]
            aged = all(age >= limits.message_timeout or age < -AHEAD_MS for age in ages)
            aged = aged and limits.message_timeout and ages[-1:] >= [limits.message_timeout]
            promise("only_due_removed", not ages or aged, channel, "lost", gone)
        else:
            promise("only_due_removed", not gone and was == stays, "clients do not take messages along")
        for client in left:
            reader = told.readers.get((client, channel))
            expired = by.name == "clean_clients" and (
                told.lost or (reader and now_ms - reader.checked_ms >= limits.client_timeout)
            )
            promise("only_due_removed", expired, client, "of", channel, "was not expired")
            told.forget(client, channel)
        if gone and by.archives:
            promise("archive_covers_removed", {*gone} <= told.archived, gone, "of", {*told.archived})
        if gone and not kept and gone[-1] not in told.archived:
            last = next(message_id for message_id, body in told.accepted[channel] if body == gone[-1])
            told.unarchived = max(told.unarchived, last)
        if was and not stays:
            told.remove(channel)
    if told.lost and by.name == "clean_channels" and updated(values) and not updated(world.store.values):
        confirm_empty(world)
    owner = values.get(by.lease_key)
    if by.number and removed and by.replies:
        promise("only_owner_removes", owner == by.owner, "the lease is", owner)


def confirm_empty(world: World) -> None:
    """A shard without channels is counted as empty, whatever was lost before."""
    meta = states.meta(world.store)
    total = meta["sent"] - meta["removed"] + meta["restored"] + meta["adjusted"]
    promise("counters_true", total == 0 or states.of_shard(world.store, "sizes"), meta, "of an empty shard")


def updated(values: dict[bytes, Any]) -> set[str]:
    return {name.decode() for name in values.get(states.key("updated"), ())}
