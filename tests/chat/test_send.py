from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from multiprocessing import get_context
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from lab import Lab, at_once, bodies, keys
from redis import Redis
from redis.exceptions import ResponseError

from chat import Chat, ChatError, InvalidArgumentError, KeyReusedError, MessageTooLongError

if TYPE_CHECKING:
    from servers import Server

pytestmark = [pytest.mark.on_cluster, pytest.mark.on_asyncio]


def test_ids_count_from_one_in_each_channel(lab: Lab) -> None:
    assert [lab.send("a", "x").id, lab.send("a", "y").id, lab.send("b", "z").id] == [1, 2, 1]


def test_a_message_carries_the_servers_time_and_the_body_sent(lab: Lab) -> None:
    seconds, micros = lab.redis.time()
    message = lab.send("lobby", {"from": "alice"})
    now = datetime.fromtimestamp(seconds + micros / 1e6, UTC)
    assert message.body == {"from": "alice"}
    assert abs(message.sent_at - now) < timedelta(seconds=5)
    assert message.sent_at.tzinfo is UTC


@pytest.mark.parametrize(
    "body",
    [
        "",
        "hi",
        "a:b:c",
        ":::",
        "\n\0\r",
        "\ud800 lone",
        "😀",
        0,
        -1.5,
        10**30,
        True,
        None,
        [],
        {},
        {"a": [1, {"b": None}]},
    ],
)
def test_any_json_value_comes_back_equal(lab: Lab, body: Any) -> None:
    lab.check("bob", "lobby")
    sent = lab.send("lobby", body)
    assert list(lab.check("bob", "lobby")) == [sent]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (float("nan"), "not JSON"),
        (float("inf"), "not JSON"),
        ({1, 2}, "not JSON: Object of type set"),
        (b"bytes", "not JSON: Object of type bytes"),
        ({1: 2}, "another value"),
        ((1, 2), "another value"),
        pytest.param(10**5000, "not JSON", id="huge-int"),
    ],
)
def test_a_body_that_is_not_json_is_refused_and_nothing_is_stored(lab: Lab, body: Any, says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=says):
        lab.send("lobby", body)
    assert not keys(lab.redis)


@pytest.mark.parametrize("depth", [101, 30_000])
def test_a_body_that_readers_could_not_parse_is_refused(lab: Lab, depth: int) -> None:
    body: list[Any] = []
    for _ in range(depth):
        body = [body]
    with pytest.raises(InvalidArgumentError, match=r"nests deeper|recursion"):
        lab.send("lobby", body)
    assert not keys(lab.redis)


def test_brackets_inside_strings_are_no_nesting(lab: Lab) -> None:
    assert lab.send("lobby", ["[" * 500 + '\\"{' * 500]).id == 1


def test_the_size_limit_counts_bytes_of_json(redis: Redis) -> None:
    lab = Lab(redis, max_message_bytes=8)
    assert lab.send("lobby", "äää").id == 1
    with pytest.raises(MessageTooLongError, match=r"the body is 9 bytes of JSON, must be at most 8"):
        lab.send("lobby", "äääa")
    assert lab.redis.llen(lab.key("lobby", "log:")) == 1


@pytest.mark.parametrize("name", ["", "x" * 201, None, 7, b"bytes"])
def test_a_bad_channel_name_is_refused_before_redis_is_touched(name: Any) -> None:
    nowhere = Chat(Redis(port=1))
    with pytest.raises(InvalidArgumentError, match=r"channel name is .*, must be a str of 1 to 200 characters"):
        nowhere.send_message(name, "x")


@pytest.mark.parametrize("name", ["x" * 200, "a{1}b", "}{", "a:b", "log:x", "*?[a]", "\n", "\0", "😀", "\ud800", " "])
def test_any_other_name_is_a_channel_of_its_own(lab: Lab, name: str) -> None:
    others = ["a", "lobby", name[1:] + "y"]
    for channel in [name, *others]:
        lab.check("bob", channel)
        lab.send(channel, channel)
    for channel in [name, *others]:
        assert bodies(lab.check("bob", channel)) == [channel]


def test_a_repeated_command_stores_once_and_returns_the_same_message(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", lambda size: b"t" * size)
    first = lab.send("lobby", "once")
    lab.send("other", "another channel of another shard")
    assert lab.send("lobby", "once") == first
    assert lab.redis.llen(lab.key("lobby", "log:")) == 1


def test_a_key_makes_the_callers_own_retry_harmless(lab: Lab) -> None:
    first = lab.send("lobby", {"n": 1}, key="order-17")
    lab.send("lobby", "between")
    assert lab.send("lobby", {"n": 1}, key="order-17") == first
    assert lab.send("elsewhere", {"n": 1}, key="order-17").id == 1
    assert lab.redis.llen(lab.key("lobby", "log:")) == 2


def test_a_key_is_known_after_its_message_was_cleaned_away(redis: Redis) -> None:
    lab = Lab(redis, backlog=1, hard_backlog=1)
    first = lab.send("lobby", "1", key="order-17")
    lab.send("lobby", "2")
    assert lab.send("lobby", "1", key="order-17").id == first.id
    assert lab.redis.lrange(lab.key("lobby", "log:"), 0, -1)[0].endswith(b'"2"')


def test_the_same_key_with_another_body_is_refused(lab: Lab) -> None:
    lab.send("lobby", "a", key="order-17")
    with pytest.raises(KeyReusedError, match="'order-17' was used for another body in channel 'lobby'"):
        lab.send("lobby", "b", key="order-17")
    assert lab.redis.llen(lab.key("lobby", "log:")) == 1


@pytest.mark.parametrize(
    ("body", "equal"),
    [
        ({"a": 1, "b": [{"c": 2, "d": 3}]}, {"b": [{"d": 3, "c": 2}], "a": 1}),
        ([{"\ud800": 1, "é": 2}], [{"é": 2, "\ud800": 1}]),
    ],
)
def test_an_equal_body_in_another_order_of_names_is_the_same_message(lab: Lab, body: Any, equal: Any) -> None:
    lab.check("bob", "lobby")
    first = lab.send("lobby", body, key="order-17")
    again = lab.send("lobby", equal, key="order-17")
    assert (again.id, again.sent_at) == (first.id, first.sent_at)
    (received,) = lab.check("bob", "lobby")
    assert repr(received.body) == repr(body)  # in its sender's order
    for other in ([body], {"b": 1}, list(body) if isinstance(body, dict) else {"é": [2]}):
        with pytest.raises(KeyReusedError):
            lab.send("lobby", other, key="order-17")


def test_a_key_stored_by_the_version_before_is_known(lab: Lab) -> None:
    body = {"b": 1, "a": 2}
    first = lab.send("lobby", body, key="order-17")
    (hash_of_tokens,) = [key for key in keys(lab.redis) if b":sent:" in key]
    (token,) = [field for field in lab.redis.hkeys(hash_of_tokens) if field != b"window"]
    plain = blake2b(b'{"b":1,"a":2}', digest_size=16).hexdigest()
    lab.redis.hset(hash_of_tokens, token, f"{first.id}:{plain}")
    assert lab.send("lobby", body, key="order-17") == first
    with pytest.raises(KeyReusedError):
        lab.send("lobby", {"b": 1}, key="order-17")


def test_tokens_outlive_a_change_of_window_and_go_by_themselves(lab: Lab) -> None:
    lab.send("lobby", "a", key="k")
    (window,) = keys(lab.redis, lab.key("lobby", "sent:").removesuffix("lobby") + "*")
    other = window[:-1] + (b"1" if window.endswith(b"0") else b"0")
    assert 60_000 < lab.redis.pttl(window) <= 120_000
    lab.redis.rename(window, other)  # as if a window had passed
    assert lab.send("lobby", "a", key="k").id == 1
    lab.redis.delete(other)  # as if both had
    assert lab.send("lobby", "a", key="k").id == 2


def later(lab: Lab, seconds: float) -> None:
    """Let the tokens of the shard of `lobby` grow older."""
    for name in ("sent:0", "sent:1"):
        key = lab.key("lobby", name)
        moment = lab.redis.pexpiretime(key) - round(seconds * 1000)  # not its TTL, which goes on falling meanwhile
        if window := lab.redis.hget(key, "window"):
            ends, lives = map(int, window.split())
            lab.redis.hset(key, "window", f"{ends - round(seconds * 1000)} {lives}")
        lab.redis.pexpireat(key, moment)  # one that is over deletes it


def seconds_now(lab: Lab) -> float:
    seconds, micros = lab.redis.time()
    return float(seconds + micros / 1e6)


@pytest.mark.parametrize("first", [1, 4, 60])
def test_a_token_is_known_for_as_long_as_its_sender_asked_whatever_others_ask(redis: Redis, first: int) -> None:
    Lab(redis, dedupe_seconds=first).send("lobby", "x", key="first")
    lab = Lab(redis, dedupe_seconds=60)
    sent = lab.send("lobby", "paid", key="order-17")
    for _ in range(9):
        later(lab, 6.5)
        Lab(redis, dedupe_seconds=first).send("lobby", "x")
        assert lab.send("lobby", "paid", key="order-17").id == sent.id


@pytest.mark.parametrize("seed", range(5))
def test_senders_with_several_spans_never_store_twice_nor_keep_tokens_for_ever(redis: Redis, seed: int) -> None:
    random = Random(seed)
    spans = random.sample([1, 2, 4, 7, 30, 60, 61], 3)
    labs = {span: Lab(redis, dedupe_seconds=span) for span in spans}
    lab, now, sent = labs[spans[0]], 0.0, list[tuple[float, int, str, int]]()
    for number in range(250):
        moment, span, key, message_id = random.choice(sent) if number % 3 == 0 and sent else (0, 0, "", 0)
        if key and now - moment < span - 0.5:
            assert labs[random.choice(spans)].send("lobby", key, key=key).id == message_id
        span = random.choice(spans)
        sent.append((now, span, f"key {number}", labs[span].send("lobby", f"key {number}", key=f"key {number}").id))
        step = random.choice([0, 0.4, 1.7, 5, random.choice([0.6, 1.1]) * span])
        later(lab, step)
        now += step
        for name in ("sent:0", "sent:1"):
            ends = int((redis.hget(lab.key("lobby", name), "window") or b"0 0").split()[0]) / 1000
            left = redis.pttl(lab.key("lobby", name)) / 1000
            assert left < 0 or abs(ends - seconds_now(lab) - left) < 1
        kept = sum(redis.hlen(lab.key("lobby", name)) for name in ("sent:0", "sent:1"))
        assert kept <= 2 + sum(moment >= now - 4 * max(spans) for moment, *_ in sent)
    later(lab, 2 * max(spans))
    assert not redis.exists(lab.key("lobby", "sent:0"), lab.key("lobby", "sent:1"))


def test_tokens_of_a_clock_far_ahead_end_soon_after_it_is_right_again(lab: Lab) -> None:
    year = 365 * 86400
    first = lab.send("lobby", "a", key="order-17")
    later(lab, -year)  # as if that send had come from a clock a year ahead
    assert lab.send("lobby", "b").id == 2
    assert all(lab.redis.pttl(key) <= 120_000 for key in keys(lab.redis) if b":sent:" in key)
    assert lab.send("lobby", "a", key="order-17").id == first.id


def test_a_hash_of_tokens_without_its_window_is_used_and_ends(lab: Lab) -> None:
    first = lab.send("lobby", "a", key="order-17")
    (hash_of_tokens,) = [key for key in keys(lab.redis) if b":sent:" in key]
    lab.redis.hdel(hash_of_tokens, "window")  # as the version before wrote it
    assert lab.send("lobby", "a", key="order-17").id == first.id
    for ttl in (year_ms := 365 * 86_400_000, 1000):
        lab.redis.hdel(hash_of_tokens, "window")
        lab.redis.pexpire(hash_of_tokens, ttl)
        lab.send("lobby", "b")
        assert 60_000 <= lab.redis.pttl(hash_of_tokens) <= 2 * 86_400_000 < year_ms
    assert lab.send("lobby", "a", key="order-17").id == first.id


def test_no_channel_grows_beyond_the_hard_backlog(redis: Redis) -> None:
    lab = Lab(redis, backlog=2, hard_backlog=3)
    lab.check("bob", "lobby")
    lab.send_all("lobby", 10)
    assert redis.llen(lab.key("lobby", "log:")) == 3
    assert redis.zscore(lab.key("lobby", "sizes"), "lobby") == 3
    check = lab.check("bob", "lobby")
    assert (check.missed, bodies(check)) == (7, ["m8", "m9", "m10"])


def test_a_lowered_hard_backlog_shrinks_an_old_log_in_bounded_steps(redis: Redis) -> None:
    Lab(redis, hard_backlog=0).send_all("lobby", 2500)
    lab = Lab(redis, backlog=1, hard_backlog=10)
    sizes = []
    for _ in range(3):
        lab.send("lobby", "x")
        sizes.append(redis.llen(lab.key("lobby", "log:")))
    assert sizes == [1501, 502, 10]
    assert lab.send("lobby", "x").id == 2504


def test_no_cap_means_no_cap(redis: Redis) -> None:
    lab = Lab(redis, backlog=1, hard_backlog=0)
    lab.send_all("lobby", 50)
    assert redis.llen(lab.key("lobby", "log:")) == 50


def test_a_clock_that_steps_back_does_not_unsort_the_log(lab: Lab) -> None:
    first = lab.send("lobby", "a")
    lab.idle("lobby", -3600)  # the last message came from a clock an hour ahead
    second = lab.send("lobby", "b")
    assert second.sent_at - first.sent_at >= timedelta(seconds=3599)
    assert lab.send("lobby", "c").sent_at == second.sent_at


def test_a_stamp_more_than_an_hour_ahead_counts_as_now(lab: Lab) -> None:
    lab.send("lobby", "a")
    lab.idle("lobby", -2 * 3600)  # the last message came from a clock two hours ahead
    second = lab.send("lobby", "b")
    assert abs(second.sent_at.timestamp() - seconds_now(lab)) < 60
    assert abs(lab.redis.zscore(lab.key("lobby", "updated"), "lobby") / 1000 - seconds_now(lab)) < 60
    assert lab.send("lobby", "c").sent_at >= second.sent_at


def test_four_threads_share_a_chat_and_ids_have_no_gap(lab: Lab) -> None:
    ids: list[int] = []

    def run() -> None:
        ids.extend(lab.send("lobby", "x").id for _ in range(25))

    at_once(run)
    assert sorted(ids) == list(range(1, 101))


def test_a_send_that_cannot_read_when_its_tokens_end_stores_nothing(lab: Lab) -> None:
    lab.redis.hset(lab.key("lobby", "sent:1"), "window", "damaged")
    with pytest.raises(ResponseError):
        lab.send("lobby", "x")
    assert not lab.redis.exists(lab.key("lobby", "log:"))


def send_ten(port: int, number: int) -> list[int]:
    chat = Chat(Redis(port=port))
    return [chat.send_message("lobby", f"{number}-{index}").id for index in range(10)]


def test_ten_processes_at_once_deliver_every_message_exactly_once(lab: Lab, server: Server) -> None:
    lab.check("bob", "lobby")
    received = []
    with ProcessPoolExecutor(10, mp_context=get_context("forkserver")) as pool:
        futures = [pool.submit(send_ten, server.port, number) for number in range(10)]
        while not all(future.done() for future in futures):
            received += lab.check("bob", "lobby", limit=7)
        ids = [message_id for future in futures for message_id in future.result()]
    received += lab.check("bob", "lobby")
    assert sorted(ids) == list(range(1, 101))
    assert [message.id for message in received] == list(range(1, 101))
    assert sorted(bodies(received)) == sorted(f"{number}-{index}" for number in range(10) for index in range(10))
    for number in range(10):
        mine = [body for body in bodies(received) if body.startswith(f"{number}-")]
        assert mine == [f"{number}-{index}" for index in range(10)]


def test_every_refusal_is_a_chat_error_and_a_builtin(lab: Lab) -> None:
    with pytest.raises(ChatError):
        lab.send("", "x")
    with pytest.raises(ValueError, match="channel name is 0 characters long"):
        lab.send("", "x")
