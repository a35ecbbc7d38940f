"""What the chat promises, and what its callers know: held against every reply.

`Told` is what callers know: what was accepted, who has read how far, what the archive has. It is carried along beside
the store. Each promise has a name, and is broken by that name; `states` has those that hold in every state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from chat import Check, Message

PROMISES = {
    "exactly_once": "an accepted message is stored once; a repeat returns its id and changes nothing",
    "key_is_of_one_body": "a key that was used for one body is refused for another",
    "ids_rise": "an id is above all that the channel ever had, and the next one while the channel stands",
    "ids_stay": "under an id is the message that was accepted with it",
    "log_sorted": "a log is sorted by time",
    "exact_missed": "what a reader is given and what it is told it missed are together all that was sent",
    "never_falsely_caught_up": "a reader that is told there is no more was given, or told of, everything",
    "repeat_is_same": "a check that is repeated since its reply was lost says the same, or counts what is gone since",
    "limits_hold": "a check gives no more than its limit, a channel holds no more than its hard backlog",
    "nothing_lost": "a message goes by a sweep or the hard backlog only",
    "only_due_removed": "a sweep removes only what its limits let go at that moment",
    "only_owner_removes": "a sweep removes only while it holds the lease",
    "due_is_removed": "after a sweep that ran through nothing is due",
    "dry_run_is_run": "a dry run changes nothing and tells what the run then removes",
    "sweep_ends": "a sweep comes to its end",
    "lease_given_back": "a sweep that ended leaves no lease",
    "lease_lasts": "a lease lasts for its whole time from the last removal",
    "archive_covers_removed": "with an archive, a message is in Redis or in the archive at every moment",
    "unkept_true": "`unkept` is no less than the id of any last message that went without an archive",
    "no_trace_without_owner": "nothing is kept of a channel or client that is gone, and all is kept of one that is not",
    "indexes_true": "an index hides nothing that is due",
    "counters_true": "the numbers in meta are right",
    "full_stores_nothing": "a full server stores nothing of a new message or client, and known clients go on reading",
    "mended": "after a send and checks nothing is left of a lost key but what was lost",
    "no_error": "no call fails",
}


LOSE_IDS = {"trimmed", "meta", "read", "seen", "polled", "snapshot"}  # or positions: clients may be told they are new
FORGOTTEN = 10**9  # ids that were jumped over as `trimmed` was lost are no messages


class BrokenError(Exception):
    """Raised when a promise is broken.

    Args:
        name: of the promise.
        why: what was seen.
    """

    def __init__(self, name: str, why: str) -> None:
        assert name in PROMISES, name
        super().__init__(f"{name}: {why}")
        self.name = name


def promise(name: str, kept: object, *why: Any) -> None:
    if not kept:
        raise BrokenError(name, " ".join(map(str, why)))


class Reader(NamedTuple):
    """A client that is connected to a channel.

    Attributes:
        upto: how many of the channel's messages it was given, or told that it missed.
        position: the id that it has read up to.
        checked_ms: when it last checked.
        token: of the last check that moved the position.
    """

    upto: int
    position: int
    checked_ms: int
    token: int


class Cursor(NamedTuple):
    """A cursor, and what it accounts for."""

    text: str
    upto: int


class Asked(NamedTuple):
    """The last check of a client in a channel.

    Attributes:
        token: of the call.
        words: what was asked: channels, limit, cursors, history.
        start: how much was accounted for before.
        upto: how much afterwards.
        new: what was told.
        moved: whether it moved the position.
    """

    token: int
    words: tuple[Any, ...]
    start: int
    upto: int
    new: bool
    moved: bool


class Sent(NamedTuple):
    """A message as its sender knows it: what a repeat returns, for how long."""

    id: int
    body: int
    left_ms: int


Place = tuple[str, str]  # client and channel


@dataclass
class Told:
    """What callers know. The values are immutable, so a copy shares them.

    Attributes:
        sent: number of messages accepted.
        accepted: id and body of each, by channel, in order.
        idle_ms: time of its last message, by channel.
        readers: who is connected.
        asked: the last check of each.
        cursors: the last two of each, the newest last; they outlive the connection.
        sends: the last message by channel and key; without a key it is "".
        archived: bodies that the archive has.
        unarchived: highest id that went without an archive as the last of a channel.
        gone: channels that were removed; "folded" where nothing stayed of them since.
        jumped: channels that were folded before their last message: ids jumped.
        lost: the kinds of key that were lost.
        back_ms: how far the clock ever stepped back, all steps together.
    """

    sent: int = 0
    accepted: dict[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    idle_ms: dict[str, int] = field(default_factory=dict)
    readers: dict[Place, Reader] = field(default_factory=dict)
    asked: dict[Place, Asked] = field(default_factory=dict)
    cursors: dict[Place, tuple[Cursor, ...]] = field(default_factory=dict)
    sends: dict[Place, Sent] = field(default_factory=dict)
    archived: frozenset[int] = frozenset()
    unarchived: int = 0
    gone: dict[str, str] = field(default_factory=dict)
    jumped: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()
    back_ms: int = 0

    def copy(self) -> Told:
        values = (getattr(self, name) for name in self.__dataclass_fields__)
        return Told(*(dict(value) if isinstance(value, dict) else value for value in values))

    def key(self) -> Any:
        values = (getattr(self, name) for name in self.__dataclass_fields__)
        return tuple(frozenset(value.items()) if isinstance(value, dict) else value for value in values)

    @property
    def keeps_ids(self) -> bool:
        """Whether ids and positions are all as they were, whatever else was lost."""
        return not self.lost & LOSE_IDS

    def bodies(self, channel: str) -> list[int]:
        return [body for _, body in self.accepted.get(channel, ())]

    # What replies say

    def accept(self, channel: str, key: str, message: Message, dedupe_ms: int) -> None:
        """A message was accepted."""
        before = self.accepted.get(channel, ())
        highest = before[-1][0] if before else 0
        promise("ids_rise", message.id > highest, message.id, "after", highest, "in", channel)
        stands = before and self.gone.get(channel) != "folded" and self.keeps_ids
        promise("ids_rise", not stands or message.id == highest + 1, message.id, "is not next to", highest)
        if self.gone.pop(channel, "") == "folded":
            self.jumped |= {channel}
        self.sent += 1
        self.accepted[channel] = (*before, (message.id, message.body))
        self.idle_ms[channel] = round(message.sent_at.timestamp() * 1000)
        self.sends[channel, key] = Sent(message.id, message.body, dedupe_ms)

    def read(self, place: Place, check: Check, request: Request) -> None:
        """A check was answered."""
        channel, given, all_bodies = place[1], [message.body for message in check], self.bodies(place[1])
        position, reader = int(check.cursor.rpartition("-")[2]), self.readers.get(place)
        promise("limits_hold", request.limit is None or len(given) <= request.limit, len(given), "given")
        ids = [message.id for message in check]
        promise("ids_rise", ids == [*range(position - len(ids) + 1, position + 1)], ids, "up to", position)
        if given:
            promise("exact_missed", given[-1] in all_bodies, given, "of", all_bodies)
            upto = all_bodies.index(given[-1]) + 1
        elif check.more and not self.keeps_ids:
            upto = request.start
        else:
            upto = sum(message_id <= position for message_id, _ in self.accepted.get(channel, ()))
        promise("exact_missed", given == all_bodies[upto - len(given) : upto], "given", given, "of", all_bodies)
        if not self.keeps_ids:
            self._cover(check, upto, request, all_bodies)
        else:
            self._balance(channel, check, upto, request, all_bodies)
        if not (self.keeps_ids or check.more):
            upto = len(all_bodies)
        moved = reader is None or reader.position != position
        token = request.token if moved else reader.token
        self.readers[place] = Reader(upto, position, request.now_ms, token)
        self.asked[place] = Asked(request.token, request.words, request.start, upto, check.new, moved)
        self.cursors[place] = (*self.cursors.get(place, ()), Cursor(check.cursor, upto))[-2:]

    def _balance(self, channel: str, check: Check, upto: int, request: Request, all_bodies: list[int]) -> None:
        """What was between the two positions was given or counted, exactly."""
        known = {body: message_id for message_id, body in self.accepted.get(channel, ())}
        promise("ids_stay", all(known[message.body] == message.id for message in check), check.messages)
        promise("never_falsely_caught_up", check.more or upto == len(all_bodies), "told", upto, "of", all_bodies)
        promise("exact_missed", check.more == (upto < len(all_bodies)), "more is", check.more)
        promise("exact_missed", check.new == request.new, "new is", check.new)
        between, account = upto - request.start, check.missed + len(check)
        if request.by_cursor and channel in self.jumped:  # ids jumped, which may count too many
            promise("exact_missed", account >= between, account, "of", between)
        else:
            promise("exact_missed", account == between, account, "of", between)

    def _cover(self, check: Check, upto: int, request: Request, all_bodies: list[int]) -> None:
        """A key was lost: what was between is given or counted, or the reader is told that it is new."""
        end = upto if check.more else len(all_bodies)
        between, account = end - request.start, check.missed + len(check)
        promise("never_falsely_caught_up", check.new or account >= between, account, "of", between)
        promise("exact_missed", check.missed < FORGOTTEN, check.missed, "are more than there can be")

    def forget(self, client: str, channel: str) -> None:
        """A client is not connected any more."""
        self.readers.pop((client, channel), None)
        self.asked.pop((client, channel), None)
        self.fold(channel)

    def remove(self, channel: str) -> None:
        """A channel was removed."""
        self.gone[channel] = "removed"
        self.fold(channel)

    def fold(self, channel: str) -> None:
        """Nothing stays of a channel that is gone and has no clients."""
        if channel in self.gone and not any(other == channel for _, other in self.readers):
            self.gone[channel] = "folded"

    def wait(self, milliseconds: int) -> None:
        """Time went by."""
        for place, sent in self.sends.items():
            self.sends[place] = sent._replace(left_ms=max(0, sent.left_ms - milliseconds))


class Request(NamedTuple):
    """What a check asked for, and what it is to be told.

    Attributes:
        now_ms: when.
        token: of the call.
        words: what was asked, for a repeat.
        start: how many of the channel's messages are accounted for.
        new: whether the client is new.
        limit: messages at most.
        by_cursor: whether a cursor was given.
    """

    now_ms: int
    token: int
    words: tuple[Any, ...]
    start: int
    new: bool
    limit: int | None
    by_cursor: bool
