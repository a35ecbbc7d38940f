"""Several channels in one call."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from lab import Lab, bodies, calls, keys
from redis.exceptions import ConnectionError as RedisConnectionError

from chat import Chat, ChatFullError, ChecksFailedError, InvalidArgumentError, InvalidCursorError
from chat.store.nodes import nodes
from tasks.cleaning import clean_clients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chat.store.nodes import Client

pytestmark = [pytest.mark.on_cluster, pytest.mark.on_asyncio]

ROOMS = [f"room {number}" for number in range(40)]


def test_each_channel_is_checked_as_it_would_be_alone(lab: Lab) -> None:
    for channel in ROOMS:
        lab.check("bob", channel)
        lab.check("carol", channel)
        lab.send_all(channel, 3)
    many = lab.chat.check_many("bob", ROOMS, limit=2)
    assert list(many) == ROOMS
    for channel, check in many.items():
        alone = lab.check("carol", channel, limit=2)
        assert (check.messages, check.more, check.missed, check.cursor) == (
            alone.messages, alone.more, alone.missed, alone.cursor,
        )  # fmt: skip
    assert {len(check) for check in lab.chat.check_many("bob", ROOMS).values()} == {1}
    assert {len(check) for check in lab.chat.check_many("bob", ROOMS).values()} == {0}


def test_cursors_are_each_channels_own(lab: Lab) -> None:
    cursors: dict[str, str | None] = {channel: lab.check("bob", channel).cursor for channel in ROOMS}
    cursors["never checked"] = None
    for channel in cursors:
        lab.send_all(channel, 2)
    lost = lab.chat.check_many("bob", ROOMS)
    again = lab.chat.check_many("bob", cursors)
    assert {channel: again[channel].messages for channel in ROOMS} == {c: lost[c].messages for c in ROOMS}
    assert again["never checked"].new
    assert not any(again[channel].new for channel in ROOMS)


def test_unknown_and_expired_channels_do_not_disturb_the_others(lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.send("lobby", "hi")
    foreign = lab.check("bob", "elsewhere").cursor
    many = lab.chat.check_many("bob", {"lobby": None, "unknown": None, "expired": foreign}, history=5)
    assert bodies(many["lobby"]) == ["hi"]
    assert (many["unknown"].new, many["expired"].new) == (True, True)


def test_a_channel_named_twice_is_checked_once(lab: Lab) -> None:
    lab.check("bob", "a")
    lab.send("a", "x")
    assert [bodies(check) for check in lab.chat.check_many("bob", ["a", "b", "a"]).values()] == [["x"], []]
    assert lab.chat.check_many("bob", []) == {}
    assert list(lab.chat.check_many("bob", (name for name in "ab"))) == ["a", "b"]


@pytest.mark.parametrize("channels", ["lobby", None, 3, ["a", ""], ["a", 3], {"a": 3}, {"a": "no cursor"}])
def test_a_bad_argument_checks_nothing(lab: Lab, channels: Any) -> None:
    lab.check("bob", "a")
    lab.send("a", "x")
    with pytest.raises(InvalidArgumentError):
        lab.chat.check_many("bob", channels)
    for arguments in ({"limit": 0}, {"history": -1}):
        with pytest.raises(InvalidArgumentError):
            lab.chat.check_many("bob", ["a"], **arguments)
    with pytest.raises(InvalidCursorError):
        lab.chat.check_many("bob", {"a": "no cursor"})
    assert bodies(lab.check("bob", "a")) == ["x"]


def test_it_is_one_call_for_each_shard_and_nothing_else(lab: Lab) -> None:
    lab.chat.check_many("bob", ROOMS)
    calls(lab.redis)
    lab.chat.check_many("bob", ROOMS)
    made = calls(lab.redis)
    assert made["evalsha"] <= 16  # one a shard
    assert not {"get", "eval", "script|load"} & made.keys()


def test_a_flushed_script_cache_goes_unnoticed(lab: Lab) -> None:
    lab.chat.check_many("bob", ROOMS)
    for channel in ROOMS:
        lab.send(channel, "x")
    lab.redis.script_flush()
    assert {len(check) for check in lab.chat.check_many("bob", ROOMS).values()} == {1}


def test_one_damaged_channel_costs_no_other_its_messages(lab: Lab) -> None:
    for channel in ROOMS:
        lab.check("bob", channel)
        lab.send(channel, "x")
    broken = ROOMS[7]
    lab.redis.delete(lab.key(broken, "read:"))
    lab.redis.set(lab.key(broken, "read:"), "not a hash")
    with pytest.raises(
        ChecksFailedError, match="1 of 40 channels could not be checked; 'room 7' first: WRONGTYPE"
    ) as caught:
        lab.chat.check_many("bob", ROOMS)
    assert list(caught.value.errors) == [broken]
    assert {channel: bodies(check) for channel, check in caught.value.checks.items()} == {
        channel: ["x"] for channel in ROOMS if channel != broken
    }


def long_ones(lab: Lab, channels: list[str], count: int) -> dict[str, list[Any]]:
    """Send long messages to each channel, and return them."""
    for channel in channels:
        lab.check("bob", channel)
    return {channel: [lab.send(channel, f"{number} {'x' * 60_000}") for number in range(count)] for channel in channels}


def test_a_call_carries_about_a_megabyte_and_one_message_of_each_channel_at_least(lab: Lab) -> None:
    one = Lab(lab.redis, prefix="one", shards=1)
    sent = long_ones(one, ROOMS[:20], 17)
    received: dict[str, list[Any]] = {channel: [] for channel in sent}
    while any(many := one.chat.check_many("bob", ROOMS[:20]).values()):
        many = dict(zip(ROOMS, many, strict=False))
        assert sum(map(len, many.values())) <= 17 + 19
        for channel, check in many.items():
            received[channel] += check
            assert len(check) >= (len(received[channel]) < 17)
            assert check.more == (len(received[channel]) < 17)
    assert received == sent


def test_the_channel_that_has_most_room_is_another_by_the_calls_token(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Lab(lab.redis, prefix="one", shards=1)
    long_ones(one, ROOMS[:3], 60)
    first = set()
    for number in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(os, "urandom", lambda size, number=number: bytes([number]) * size)
            many = one.chat.check_many("bob", ROOMS[:3])
        first.add(max(many, key=lambda channel: len(many[channel])))
    assert first == set(ROOMS[:3])


def test_a_repeat_that_has_less_room_for_a_channel_skips_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Lab(lab.redis, prefix="one", shards=1)
    one.check("bob", "quiet")
    sent = long_ones(one, ["busy"], 12)["busy"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "urandom", lambda size: b"\0" * size)
        assert len(one.chat.check_many("bob", ["busy", "quiet"])["busy"]) == 12
    long_ones(one, ["quiet"], 12)
    with monkeypatch.context() as patch:
        patch.setattr(os, "urandom", lambda size: b"\0" * size)
        again = one.chat.check_many("bob", ["busy", "quiet"])
    assert (len(again["quiet"]), again["busy"].more) == (12, True)
    assert [*again["busy"], *one.check("bob", "busy")] == sent


def test_one_call_takes_twenty_channels_at_most(lab: Lab) -> None:
    one = Lab(lab.redis, prefix="one", shards=1)
    one.chat.check_many("bob", ROOMS)
    calls(lab.redis)
    assert len(one.chat.check_many("bob", [*ROOMS, "and another"])) == 41
    assert calls(lab.redis)["evalsha"] == 3


@pytest.mark.parametrize(
    "entry", [b"", b"junk", b"1:{", b"1:\xff", b"9" * 17 + b":1", b"9" * 30 + b":1", b"1:" + b"[" * 9999]
)
def test_an_entry_that_is_none_of_ours_costs_no_other_channel_its_messages(lab: Lab, entry: bytes) -> None:
    for channel in ROOMS:
        lab.check("bob", channel)
        lab.send(channel, "x")
    broken = ROOMS[7]
    lab.redis.rpush(lab.key(broken, "log:"), entry)
    with pytest.raises(ChecksFailedError, match="1 of 40 channels could not be checked") as caught:
        lab.chat.check_many("bob", ROOMS)
    assert list(caught.value.errors) == [broken]
    assert {len(check) for check in caught.value.checks.values()} == {1}
    lab.send(broken, "y")
    assert bodies(lab.check("bob", broken)) == ["y"]


@pytest.fixture
def full(lab: Lab) -> Iterator[Callable[[], None]]:
    """Let the servers run out of memory."""

    def limit(maxmemory: int) -> None:
        for node in nodes(lab.redis):
            node.config_set("maxmemory", maxmemory)

    yield lambda: limit(1)
    limit(0)


def stored(lab: Lab) -> dict[bytes, bytes]:
    return {key: lab.redis.dump(key) for key in keys(lab.redis)}


def test_while_redis_is_full_the_known_are_served_and_the_others_told_and_not_written_down(
    lab: Lab, full: Callable[[], None]
) -> None:
    for channel in ROOMS[:30]:
        lab.check("bob", channel)
        lab.send(channel, "x")
    full()
    with pytest.raises(ChecksFailedError, match="10 of 40 channels could not be checked") as caught:
        lab.chat.check_many("bob", ROOMS)
    assert {name: bodies(check) for name, check in caught.value.checks.items()} == {name: ["x"] for name in ROOMS[:30]}
    assert list(caught.value.errors) == ROOMS[30:]
    for channel, error in caught.value.errors.items():
        assert isinstance(error, ChatFullError)
        assert f"not known in channel {channel!r} yet" in str(error)
    before = stored(lab)
    with pytest.raises(ChecksFailedError):
        lab.chat.check_many("eve", ROOMS)
    for channel in (ROOMS[0], ROOMS[30]):
        with pytest.raises(ChatFullError, match="not known in channel"):
            lab.check("eve", channel, wait=1)
    assert stored(lab) == before
    assert not lab.check("bob", ROOMS[0])
    calls(lab.redis)
    assert lab.chat.check_many("bob", ROOMS[:30]).keys() == set(ROOMS[:30])
    assert calls(lab.redis)["evalsha"] <= 32  # twice, one a shard


def test_who_checked_many_is_forgotten_as_any_client(lab: Lab) -> None:
    lab.chat.check_many("bob", ROOMS)
    assert clean_clients(lab.redis, client_timeout=0).clients == len(ROOMS)
    assert not any(lab.traces(channel) for channel in ROOMS)


@pytest.mark.one_server
def test_it_is_one_round_trip(redis: Client) -> None:
    """Seen from the server: all commands came in one read of the connection's buffer."""
    chat = Chat(redis)
    chat.check_many("bob", ROOMS)
    before = nodes(redis)[0].info("stats")["total_reads_processed"]
    chat.check_many("bob", ROOMS)
    reads = nodes(redis)[0].info("stats")["total_reads_processed"] - before
    assert reads <= 3  # the calls, perhaps in two pieces, and the question


def test_an_unreachable_redis_is_redis_pys_own_error() -> None:
    with pytest.raises(RedisConnectionError):
        Chat.from_url("redis://127.0.0.1:1").check_many("bob", ["a"])
