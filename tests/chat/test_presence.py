"""Who is here, what is there, and what was said."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from lab import Lab, bodies, calls, keys
from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from chat import Chat, InvalidArgumentError
from chat.store.nodes import nodes
from tasks.cleaning import clean_channels, clean_clients
from tasks.stats.figures import read_stats

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chat.store.nodes import Client

pytestmark = [pytest.mark.on_cluster, pytest.mark.on_asyncio]


def test_the_clients_of_a_channel_are_named_with_their_last_check_and_position(lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.send_all("lobby", 3)
    lab.check("bob", "lobby", limit=2)
    lab.check("eve", "lobby")
    lab.check("carol", "elsewhere")
    here = {presence.client: presence for presence in lab.chat.clients("lobby")}
    assert {name: presence.position for name, presence in here.items()} == {"bob": 2, "eve": 3}
    for presence in here.values():
        assert abs((datetime.now(UTC) - presence.checked_at).total_seconds()) < 60
    assert lab.chat.count_clients("lobby") == 2


def test_clients_come_page_by_page_each_once(lab: Lab) -> None:
    names = {f"client {number}" for number in range(1000)}
    for name in names:
        lab.check(name, "lobby")
    found = [presence.client for presence in lab.chat.clients("lobby")]
    assert len(found) == 1000
    assert set(found) == names
    assert lab.chat.count_clients("lobby") == 1000


def test_an_unknown_channel_has_no_clients_and_no_history(lab: Lab) -> None:
    assert list(lab.chat.clients("nowhere")) == []
    assert lab.chat.count_clients("nowhere") == 0
    assert lab.chat.read_history("nowhere") == ()
    assert list(lab.chat.channels()) == []


def test_who_leaves_is_forgotten_at_once_and_comes_back_as_new(lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.check("eve", "lobby")
    lab.send("lobby", "hi")
    lab.chat.leave_channel("bob", "lobby")
    lab.chat.leave_channel("bob", "lobby")
    lab.chat.leave_channel("nobody", "nowhere")
    assert [presence.client for presence in lab.chat.clients("lobby")] == ["eve"]
    assert bodies(lab.check("eve", "lobby")) == ["hi"]
    assert lab.check("bob", "lobby").new


def test_leaving_keeps_the_account_of_clients(lab: Lab, redis: Client) -> None:
    for name in ("bob", "eve"):
        lab.check(name, "lobby")
    lab.chat.leave_channel("bob", "lobby")
    assert read_stats(redis, settings=lab.settings).clients == 1
    lab.chat.leave_channel("eve", "lobby")
    assert read_stats(redis, settings=lab.settings).clients == 0
    assert lab.traces("lobby") == {}


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("damaged", ["meta", "polled", "seen:", "read:", "updated", "trimmed", "clients", "floor"])
def test_who_leaves_a_damaged_channel_leaves_whole_or_not_at_all(
    lab: Lab, redis: Client, damaged: str, *, other: bool
) -> None:
    for name in ("bob", "eve")[: 1 + other]:
        lab.check(name, "lobby")
    key = lab.key("lobby", "meta" if damaged in {"clients", "floor"} else damaged)
    sound = redis.dump(key)
    if key.endswith("meta") and damaged != "meta":
        redis.hset(key, damaged, "of others")
    else:
        redis.delete(key)
        redis.set(key, "of others")
    before = {name: redis.dump(name) for name in keys(redis)}
    if other and damaged in {"updated", "trimmed"}:  # only the last client needs them
        lab.chat.leave_channel("bob", "lobby")
    else:
        with pytest.raises(ResponseError, match=r"WRONGTYPE|is no number"):
            lab.chat.leave_channel("bob", "lobby")
        assert {name: redis.dump(name) for name in keys(redis)} == before
    redis.delete(key)
    if sound:
        redis.restore(key, 0, sound)
    lab.chat.leave_channel("bob", "lobby")
    assert redis.hget(lab.key("lobby", "meta"), "clients") == b"%d" % other
    assert [presence.client for presence in lab.chat.clients("lobby")] == ["eve"][: int(other)]


def test_with_the_last_who_leaves_goes_what_was_left_of_a_removed_channel(lab: Lab, redis: Client) -> None:
    lab.check("bob", "lobby")
    lab.send_all("lobby", 7)
    lab.idle("lobby", 901)
    assert clean_channels(redis, settings=lab.settings).channels == 1
    lab.chat.leave_channel("bob", "lobby")
    assert lab.traces("lobby") == {}
    assert lab.send("lobby", "its ids go on").id == 8


def test_the_eldest_check_left_is_when_the_channel_is_looked_at_again(lab: Lab, redis: Client) -> None:
    for name in ("bob", "eve"):
        lab.check(name, "lobby")
    lab.away("bob", "lobby", 200)
    lab.away("eve", "lobby", 301)
    lab.chat.leave_channel("eve", "lobby")
    assert clean_clients(redis, settings=lab.settings).clients == 0
    assert lab.chat.count_clients("lobby") == 1


def test_channels_are_those_with_something_sent_and_not_removed(lab: Lab, redis: Client) -> None:
    names = {f"room {number}" for number in range(500)}
    for name in names:
        lab.send(name, "hi")
    lab.check("bob", "only checked")
    found = list(lab.chat.channels())
    assert len(found) == 500
    assert set(found) == names
    lab.idle("room 7", 901)
    clean_channels(redis, settings=lab.settings)
    assert set(lab.chat.channels()) == names - {"room 7"}


def test_names_of_any_characters_come_back_as_they_were(lab: Lab) -> None:
    names = {"é \ud800", "{1}", "a:b", "\n"}
    for name in names:
        lab.send(name, "hi")
        lab.check(name, "lobby")
    assert set(lab.chat.channels()) == names
    assert {presence.client for presence in lab.chat.clients("lobby")} == names


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, range(1, 11)),
        ({"limit": 3}, [8, 9, 10]),
        ({"limit": 3, "before": 8}, [5, 6, 7]),
        ({"limit": 3, "before": 3}, [1, 2]),
        ({"before": 1}, []),
        ({"before": 99}, range(1, 11)),
        ({"limit": None}, range(1, 11)),
    ],
)
def test_history_is_read_backwards_and_nobody_moves(lab: Lab, arguments: dict[str, Any], expected: list[int]) -> None:
    lab.check("bob", "lobby")
    sent = [lab.send("lobby", f"m{number}") for number in range(1, 11)]
    history = lab.chat.read_history("lobby", **arguments)
    assert [message.id for message in history] == list(expected)
    assert set(history) <= set(sent)
    assert len(lab.check("bob", "lobby")) == 10
    assert lab.chat.count_clients("lobby") == 1


def test_history_begins_where_cleaning_ended(lab: Lab) -> None:
    lab.send_all("lobby", 10)
    lab.redis.ltrim(lab.key("lobby", "log:"), 4, -1)
    lab.redis.hset(lab.key("lobby", "trimmed"), "lobby", 4)
    assert [message.id for message in lab.chat.read_history("lobby", limit=None)] == [5, 6, 7, 8, 9, 10]
    assert [message.id for message in lab.chat.read_history("lobby", before=5)] == []


def test_a_long_history_is_read_whole(lab: Lab) -> None:
    sent = lab.send_all("lobby", 1000)
    assert [message.body for message in lab.chat.read_history("lobby", limit=None)] == sent


@contextmanager
def only_reading(redis: Client) -> Iterator[None]:
    """Take from everybody the right to write, and that to ask for the keys of a command."""
    reading = ("-@all", "+@read", "+@connection", "+eval_ro", "+evalsha_ro", "+acl", "resetkeys", "%R~*")
    for node in nodes(redis):
        node.execute_command("ACL", "SETUSER", "default", *reading)
    try:
        yield
    finally:
        for node in nodes(redis):
            node.execute_command("ACL", "SETUSER", "default", "+@all", "allkeys")


def test_a_user_without_the_right_to_write_reads_history_and_clients_in_one_round_trip(lab: Lab) -> None:
    sent = lab.send_all("lobby", 3)
    lab.check("bob", "lobby")
    calls(lab.redis)
    with only_reading(lab.redis):
        for _ in range(2):
            assert [message.body for message in lab.chat.read_history("lobby")] == sent
            assert [presence.client for presence in lab.chat.clients("lobby")] == ["bob"]
            assert lab.chat.count_clients("lobby") == 1
        for refused in (lambda: lab.send("lobby", "x"), lambda: lab.check("bob", "lobby")):
            with pytest.raises(NoPermissionError):
                refused()
    counted = calls(lab.redis)
    assert (counted["evalsha_ro"], counted["eval_ro"]) == (4, 2)
    assert not any(name.startswith("command") for name in counted)


def test_a_user_without_the_right_to_write_reads_no_history_whose_ids_were_lost(lab: Lab) -> None:
    lab.send_all("lobby", 3)
    lab.redis.delete(lab.key("lobby", "trimmed"))
    with only_reading(lab.redis), pytest.raises(NoPermissionError):
        lab.chat.read_history("lobby")
    assert len(lab.chat.read_history("lobby")) == 3


def test_where_the_ids_were_lost_the_next_page_of_a_history_goes_on(lab: Lab) -> None:
    sent = lab.send_all("lobby", 6)
    lab.redis.delete(lab.key("lobby", "trimmed"))
    newest = lab.chat.read_history("lobby", limit=3)
    older = lab.chat.read_history("lobby", limit=3, before=newest[0].id)
    assert [message.body for message in older + newest] == sent


def test_where_the_ids_were_lost_history_and_checks_agree_on_new_ones(lab: Lab) -> None:
    lab.send_all("lobby", 3)
    lab.redis.hdel(lab.key("lobby", "trimmed"), "lobby")
    history = lab.chat.read_history("lobby")
    assert lab.check("bob", "lobby", history=3).messages == history


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda chat: chat.read_history("lobby", limit=0),
            "limit is 0, must be a whole number of at least 1 and at most 1000",
        ),
        (
            lambda chat: chat.read_history("lobby", before=0),
            "before is 0, must be a whole number of at least 1 and at most 9007",
        ),
        (lambda chat: chat.read_history("lobby", before=2**53), "before is 9007199254740992, must be"),
        (lambda chat: chat.read_history(""), "channel name is"),
        (lambda chat: chat.clients(""), "channel name is"),
        (lambda chat: chat.count_clients(None), "channel name is None"),
        (lambda chat: chat.leave_channel("", "lobby"), "client name is"),
        (lambda chat: chat.listen("", "lobby"), "client name is"),
    ],
)
def test_bad_arguments_are_refused_before_redis_is_touched(call: Any, says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=says):
        call(Chat(Redis(port=1)))
