from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from lab import Lab, at_once, bodies, calls
from redis import Redis

from chat import Chat, InvalidArgumentError, InvalidCursorError, ShardsMismatchError

if TYPE_CHECKING:
    from servers import Server

pytestmark = [pytest.mark.on_cluster, pytest.mark.on_asyncio]


def test_a_reply_is_bounded_where_others_may_send_longer_messages(lab: Lab) -> None:
    short = Lab(lab.redis, max_message_bytes=100)
    short.check("bob", "lobby")
    for _ in range(100):
        lab.send("lobby", "x" * 60_000)
    check = short.check("bob", "lobby")
    assert 0 < len(check) < 40
    assert check.more
    assert len(short.chat.read_history("lobby", limit=None)) < 40


def test_a_new_client_starts_at_the_end(lab: Lab) -> None:
    lab.send("lobby", "before")
    first = lab.check("bob", "lobby")
    assert (first.new, first.messages, first.missed, first.more) == (True, (), 0, False)
    lab.send("lobby", "after")
    second = lab.check("bob", "lobby")
    assert (second.new, bodies(second)) == (False, ["after"])


def test_a_check_has_the_length_the_truth_and_the_messages_of_its_messages(lab: Lab) -> None:
    assert not lab.check("bob", "lobby")
    sent = [lab.send("lobby", "a"), lab.send("lobby", "b")]
    check = lab.check("bob", "lobby")
    assert check
    assert len(check) == 2
    assert list(check) == sent


def test_a_limit_leaves_the_rest_for_the_next_check_and_says_so(lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.send_all("lobby", 5)
    found = [(bodies(check), check.more) for check in (lab.check("bob", "lobby", limit=2) for _ in range(3))]
    assert found == [(["m1", "m2"], True), (["m3", "m4"], True), (["m5"], False)]


def test_no_limit_means_all_that_is_stored(lab: Lab) -> None:
    lab.check("bob", "lobby")
    sent = lab.send_all("lobby", 500)
    assert bodies(lab.check("bob", "lobby")) == sent


def test_a_reply_carries_about_a_megabyte_and_more_says_that_the_rest_is_waiting(lab: Lab) -> None:
    lab.check("bob", "lobby")
    sent = [lab.send("lobby", f"{number} {'x' * 60_000}") for number in range(40)]
    received: list[Any] = []
    while check := lab.check("bob", "lobby"):
        received += check
        assert check.more == (len(received) < 40)
        assert len(check) <= 17
    assert received == sent


@pytest.mark.parametrize("longest", [65_536, 4_000_000])
def test_a_message_longer_than_a_reply_comes_alone(lab: Lab, longest: int) -> None:
    lab.check("bob", "lobby")
    sizes = [3_000_000, 1_500_000, 10, 10]
    for size in sizes:
        Lab(lab.redis, max_message_bytes=4_000_000).send("lobby", "x" * size)
    reader = Lab(lab.redis, max_message_bytes=longest)
    replies = []
    while check := reader.check("bob", "lobby"):
        replies.append([len(message.body) for message in check])
    assert sum(replies, []) == sizes  # noqa: RUF017  a few
    if longest == 4_000_000:
        assert replies == [[3_000_000], [1_500_000], [10, 10]]


def test_a_repeated_check_of_more_than_fits_in_skips_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.check("bob", "lobby")
    sent = [lab.send("lobby", f"{number} {'x' * 60_000}") for number in range(40)]
    with monkeypatch.context() as patch:
        patch.setattr(os, "urandom", lambda size: b"t" * size)
        first = lab.check("bob", "lobby")
        assert lab.check("bob", "lobby") == first
        lab.redis.ltrim(lab.key("lobby", "log:"), 5, -1)  # cleaned before the repeat
        lab.redis.hset(lab.key("lobby", "trimmed"), "lobby", 5)
        again = lab.check("bob", "lobby")
    assert (again.missed, again.messages) == (5, first.messages[5:])
    rest = [*lab.check("bob", "lobby"), *lab.check("bob", "lobby")]
    assert [*first, *rest] == sent


def test_a_page_of_history_is_about_a_megabyte_of_the_newest_messages(lab: Lab) -> None:
    sent = [lab.send("lobby", f"{number} {'x' * 60_000}") for number in range(40)]
    found: list[Any] = []
    while page := lab.chat.read_history("lobby", limit=None, before=found[0].id if found else None):
        assert len(page) <= 17
        found = [*page, *found]
    assert found == sent
    assert lab.chat.read_history("lobby", limit=3) == tuple(sent[-3:])


@pytest.mark.parametrize(("history", "expected"), [(0, []), (2, ["m4", "m5"]), (20, ["m1", "m2", "m3", "m4", "m5"])])
def test_history_gives_a_new_client_the_latest_messages(lab: Lab, history: int, expected: list[str]) -> None:
    lab.send_all("lobby", 5)
    check = lab.check("bob", "lobby", history=history)
    assert (check.new, check.missed, bodies(check)) == (True, 0, expected)
    assert not lab.check("bob", "lobby", history=history)


def test_history_and_limit_together_read_on_where_they_stopped(lab: Lab) -> None:
    lab.send_all("lobby", 5)
    check = lab.check("bob", "lobby", history=3, limit=2)
    assert (bodies(check), check.more) == (["m3", "m4"], True)
    assert bodies(lab.check("bob", "lobby")) == ["m5"]


def test_clients_and_channels_do_not_touch_each_other(lab: Lab) -> None:
    for client in ("bob", "bobby", "eve"):
        lab.check(client, "lobby")
    lab.send("lobby", "a")
    lab.send("lobby2", "b")
    assert bodies(lab.check("bob", "lobby")) == ["a"]
    assert bodies(lab.check("bobby", "lobby")) == ["a"]
    assert lab.check("eve", "lobby2").new


def test_missed_counts_what_was_cleaned_away_unread(redis: Redis) -> None:
    lab = Lab(redis, backlog=3, hard_backlog=3)
    lab.check("bob", "lobby")
    lab.send_all("lobby", 2)
    lab.check("bob", "lobby", limit=1)
    lab.send_all("lobby", 5, start=3)
    check = lab.check("bob", "lobby")
    assert (check.new, check.missed, bodies(check)) == (False, 3, ["m5", "m6", "m7"])
    assert lab.check("bob", "lobby").missed == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"limit": 0}, "limit is 0, must be a whole number of at least 1 and at most 1000000, or None for all"),
        ({"limit": -3}, "limit is -3"),
        ({"limit": 1.5}, "limit is 1.5"),
        ({"limit": True}, "limit is True"),
        ({"history": -1}, "history is -1, must be a whole number of at least 0"),
        ({"history": None}, "history is None"),
        ({"limit": 1_000_001}, "limit is 1000001, must be a whole number of at least 1 and at most 1000000"),
        ({"history": 10**20}, "history is 100000000000000000000, must be"),
    ],
)
def test_a_bad_limit_or_history_is_one_clear_error(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=says):
        Chat(Redis(port=1)).check_messages("bob", "lobby", **arguments)


@pytest.mark.parametrize("client", ["", "x" * 201, None])
def test_a_bad_client_name_is_refused_before_redis_is_touched(client: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="client name is"):
        Chat(Redis(port=1)).check_messages(client, "lobby")


@pytest.mark.parametrize(
    "cursor",
    ["", "garbage", "a03fec1a24dc-cce455f7-", "a03fec1a24dc-cce455f7--1", "A03FEC1A24DC-cce455f7-1", 7, "é" * 500],
)
def test_a_malformed_cursor_is_a_typed_error(cursor: Any) -> None:
    with pytest.raises(InvalidCursorError, match="must be the cursor of an earlier check, or None"):
        Chat(Redis(port=1)).check_messages("bob", "lobby", after=cursor)


def test_after_serves_again_what_a_lost_response_carried(lab: Lab) -> None:
    arrived = lab.check("bob", "lobby").cursor
    lab.send_all("lobby", 3)
    lab.check("bob", "lobby")  # its response never reached the browser
    again = lab.check("bob", "lobby", after=arrived)
    assert (again.new, bodies(again)) == (False, ["m1", "m2", "m3"])
    assert not lab.check("bob", "lobby", after=again.cursor)


def test_a_repeated_check_returns_the_same_messages(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.check("bob", "lobby")
    lab.send_all("lobby", 3)
    monkeypatch.setattr(os, "urandom", lambda size: b"t" * size)
    first = lab.check("bob", "lobby", limit=2)
    monkeypatch.undo()
    lab.send("lobby", "m4")
    monkeypatch.setattr(os, "urandom", lambda size: b"t" * size)
    assert lab.check("bob", "lobby", limit=2) == first
    monkeypatch.undo()
    assert bodies(lab.check("bob", "lobby")) == ["m3", "m4"]


def test_a_repeated_first_check_is_still_new(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.send_all("lobby", 3)
    monkeypatch.setattr(os, "urandom", lambda size: b"t" * size)
    first = lab.check("bob", "lobby", history=2)
    assert lab.check("bob", "lobby", history=2) == first
    assert first.new


def test_a_repeated_check_does_not_pass_over_what_came_between(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.check("bob", "lobby")
    lab.send("lobby", "m1")
    monkeypatch.setattr(os, "urandom", lambda size: b"t" * size)
    first = lab.check("bob", "lobby")
    Chat(lab.redis).send_message("lobby", "m2", key="another token")
    assert bodies(lab.check("bob", "lobby")) == bodies(first) == ["m1"]
    monkeypatch.undo()
    assert bodies(lab.check("bob", "lobby")) == ["m2"]


def test_two_checks_of_one_client_at_once_split_the_messages(lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.send_all("lobby", 400)
    found: list[int] = []

    def run() -> None:
        while check := lab.check("bob", "lobby", limit=3):
            found.extend(message.id for message in check)

    at_once(run)
    assert sorted(found) == list(range(1, 401))


def test_send_and_check_are_one_evalsha_each_and_nothing_else(lab: Lab, server: Server) -> None:
    lab.check("bob", "lobby")
    lab.send("lobby", "warm")
    calls(lab.redis)
    with Redis(port=server.port) as watcher, watcher.monitor() as monitor:
        for number in range(10):
            lab.send(f"channel {number}", "hi")
            lab.check("bob", f"channel {number}", limit=5)
        lab.redis.echo("end")
        sent = []
        while (command := monitor.next_command())["command"] != "ECHO end":
            if command["client_type"] != "lua":
                sent.append(command["command"].split()[0])
    assert sent == ["EVALSHA"] * 20
    assert calls(lab.redis)["evalsha"] == 20


@pytest.mark.usefixtures("redis")
def test_a_client_that_decodes_its_replies_is_welcome(server: Server) -> None:
    with Redis(port=server.port, decode_responses=True) as decoding:
        chat = Chat(decoding)
        chat.check_messages("bob", "lobby")
        sent = chat.send_message("lobby", "héllo \ud800")
        assert list(chat.check_messages("bob", "lobby")) == [sent]


def test_a_flushed_script_cache_goes_unnoticed(lab: Lab) -> None:
    lab.check("bob", "lobby")
    for number in range(5):
        lab.redis.script_flush()
        lab.send("lobby", number)
        lab.redis.script_flush()
        assert bodies(lab.check("bob", "lobby")) == [number]


def test_a_connection_that_was_cut_goes_unnoticed(lab: Lab, server: Server) -> None:
    chat = Chat.from_url(server.url)
    chat.check_messages("bob", "lobby")
    for number in range(3):
        lab.redis.client_kill_filter(_type="normal", skipme=True)
        chat.send_message("lobby", number)
        lab.redis.client_kill_filter(_type="normal", skipme=True)
        assert bodies(chat.check_messages("bob", "lobby")) == [number]


def test_another_number_of_shards_is_refused_with_a_clear_error(lab: Lab) -> None:
    lab.send("lobby", "x")
    other = Lab(lab.redis, shards=8)
    for call in (lambda: other.send("lobby", "y"), lambda: other.check("bob", "lobby")):
        with pytest.raises(ShardsMismatchError, match="is stored in 16 shards, this process has 8: set CHAT_SHARDS=16"):
            call()
    assert lab.redis.llen(lab.key("lobby", "log:")) == 1


def test_two_prefixes_are_two_chats(lab: Lab) -> None:
    other = Lab(lab.redis, prefix="other", shards=4)
    lab.send("lobby", "mine")
    assert other.send("lobby", "theirs").id == 1
    assert other.check("bob", "lobby", history=5).messages[0].body == "theirs"
