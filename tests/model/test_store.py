"""The store and the Lua of the model, held against real servers: each command by random calls, each script by name."""

from __future__ import annotations

import random
import re
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import RedisError, ResponseError

from chat.store.nodes import RAW
from tests.model.calls import SOURCES
from tests.model.lua import Lua, words_in
from tests.model.store import COMMANDS, Hash, ReplyError, SortedSet, Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis

SEED, CALLS = 2011, 20_000
KEYS = [b"string", b"list", b"hash", b"zset", b"any"]
MEMBERS = [b"a", b"b", b"c", b"\xff", b"", b"10"]
SCORES = [b"0", b"1", b"-1", b"1.5", b"0.1", b"3e3", b"inf", b"-inf", b"1e20", b"1.7e308", b"4503599627370497", b"x"]
INDEXES = [b"0", b"1", b"2", b"5", b"-1", b"-2", b"-9", b"100"]
FAR = 10**9  # ms


def some(source: list[bytes], pick: random.Random, most: int = 3) -> list[bytes]:
    return pick.choices(source, k=pick.randint(1, most))


def pairs(firsts: list[bytes], seconds: list[bytes], pick: random.Random) -> list[bytes]:
    return list(chain.from_iterable((pick.choice(firsts), pick.choice(seconds)) for _ in range(pick.randint(1, 3))))


def bounds(pick: random.Random) -> list[bytes]:
    return [pick.choice([b"", b"("]) + pick.choice(SCORES) for _ in range(2)]


ARGUMENTS: dict[bytes, Callable[[random.Random], list[bytes]]] = {
    b"DEL": lambda pick: some(KEYS, pick)[1:],
    b"EXISTS": lambda pick: some(KEYS, pick)[1:],
    b"GET": lambda _: [],
    b"HDEL": lambda pick: some(MEMBERS, pick),
    b"HEXISTS": lambda pick: some(MEMBERS, pick, 1),
    b"HGET": lambda pick: some(MEMBERS, pick, 1),
    b"HINCRBY": lambda pick: [pick.choice(MEMBERS), pick.choice([*INDEXES, b"01", b"1.5", b"x"])],
    b"HLEN": lambda _: [],
    b"HMGET": lambda pick: some(MEMBERS, pick),
    b"HSET": lambda pick: pairs(MEMBERS, [*INDEXES, b"text"], pick),
    b"HSETNX": lambda pick: [pick.choice(MEMBERS), pick.choice(INDEXES)],
    b"LINDEX": lambda pick: some(INDEXES, pick, 1),
    b"LLEN": lambda _: [],
    b"LPUSH": lambda pick: some(MEMBERS, pick),
    b"LRANGE": lambda pick: pick.choices(INDEXES, k=2),
    b"LTRIM": lambda pick: pick.choices(INDEXES, k=2),
    b"PEXPIRE": lambda pick: [pick.choice([b"0", b"-5", b"%d" % FAR, b"%d" % (2 * FAR)])],
    b"PEXPIREAT": lambda pick: [pick.choice([b"0", b"1000", b"9%012d" % 0])],
    b"PTTL": lambda _: [],
    b"RPUSH": lambda pick: some(MEMBERS, pick),
    b"SET": lambda pick: [b"v", *pick.choice([[], [b"NX"], [b"PX", b"%d" % FAR], [b"NX", b"PX", b"%d" % FAR]])],
    b"SPUBLISH": lambda _: [b"heard by nobody"],
    b"TIME": lambda _: [],
    b"UNLINK": lambda pick: some(KEYS, pick)[1:],
    b"ZADD": lambda pick: (
        pick.choice([[], [b"NX"], [b"CH"], [b"GT"], [b"GT", b"CH"], [b"LT"]]) + pairs(SCORES, MEMBERS, pick)
    ),
    b"ZCARD": lambda _: [],
    b"ZCOUNT": bounds,
    b"ZINCRBY": lambda pick: [pick.choice(SCORES), pick.choice(MEMBERS)],
    b"ZMSCORE": lambda pick: some(MEMBERS, pick),
    b"ZRANGE": lambda pick: pick.choice(
        [
            [*pick.choices(INDEXES, k=2), *pick.choice([[], [b"WITHSCORES"]])],
            [
                *bounds(pick),
                b"BYSCORE",
                *pick.choice([[], [b"LIMIT", *pick.choices(INDEXES, k=2)]]),
                *pick.choice([[], [b"WITHSCORES"]]),
            ],
        ]
    ),
    b"ZREM": lambda pick: some(MEMBERS, pick),
    b"ZREVRANGE": lambda pick: pick.choices(INDEXES, k=2),
    b"ZSCAN": lambda _: [b"0", b"COUNT", b"100"],
    b"ZSCORE": lambda pick: some(MEMBERS, pick, 1),
}


def test_every_word_of_a_script_that_is_a_command_is_known_to_the_store(redis: Redis) -> None:
    words = set().union(*map(words_in, SOURCES.values()))
    taken = {word.encode() for word in words if word.lower() in redis.command()}
    assert taken - COMMANDS.keys() == set()
    assert len(taken) > 20


def test_every_command_of_the_store_is_held_against_a_server() -> None:
    assert sorted(ARGUMENTS) == sorted(COMMANDS)


def test_random_commands_have_the_same_replies_and_leave_the_same_behind(redis: Redis) -> None:
    pick = random.Random(SEED)
    calls = []
    for _ in range(CALLS):
        name = pick.choice(sorted(ARGUMENTS))
        key = [] if name == b"TIME" else [pick.choice(KEYS)]
        calls.append((name, *key, *ARGUMENTS[name](pick)))
        if pick.random() < 1 / 50:
            calls.append((b"UNLINK", *KEYS))  # or each key keeps the type that it was first given
    store = Store({}, {}, now_of(redis))
    for start in range(0, len(calls), 1000):
        part = calls[start : start + 1000]
        pipeline = redis.pipeline(transaction=False)
        for call in part:
            pipeline.execute_command(*call, **RAW)
        for call, real in zip(part, pipeline.execute(raise_on_error=False), strict=True):
            assert plain(call, answered(store, call)) == plain(call, real), call
    assert {key: plain((b"",), value) for key, value in store.values.items()} == {
        key: plain((b"",), value) for key, value in stored(redis).items()
    }


def now_of(redis: Redis) -> int:
    seconds, microseconds = redis.time()
    return seconds * 1000 + microseconds // 1000


def answered(store: Store, call: tuple[bytes, ...]) -> Any:
    try:
        return store.execute(*call)
    except ReplyError as error:
        return error


def plain(call: tuple[bytes, ...], reply: Any) -> Any:  # noqa: PLR0911  one for each shape
    """Return a reply without what may differ: the text of an error, the digits of a fraction, the time that passed."""
    if isinstance(reply, ReplyError | RedisError):
        return "WRONGTYPE" if str(reply).startswith("WRONGTYPE") else "ERR"
    if call[0] in {b"PTTL", b"TIME"}:
        return round(int(reply[0] if call[0] == b"TIME" else reply) / 600_000 + 0.4)
    if isinstance(reply, list | tuple):
        if call[0] == b"ZSCAN":
            cursor, found = reply
            return cursor, sorted(map(str, plain((b"",), found)))
        each = chain.from_iterable(item if isinstance(item, list | tuple) else [item] for item in reply)
        return [plain((b"",), item) for item in each]  # RESP3 has pairs
    if isinstance(reply, dict):
        return {field: plain((b"",), value) for field, value in reply.items()}
    if isinstance(reply, bytes) and re.fullmatch(rb"-?\d+(\.\d+)?(e[+-]?\d+)?|-?inf", reply):
        return float(reply)
    return reply


def stored(redis: Redis) -> dict[bytes, Any]:
    read: dict[bytes, Callable[[bytes], Any]] = {
        b"string": redis.get,
        b"list": lambda key: tuple(redis.lrange(key, 0, -1)),
        b"hash": redis.hgetall,
        b"zset": lambda key: dict(redis.zrange(key, 0, -1, withscores=True)),
    }
    return {key: read[redis.type(key)](key) for key in redis.keys()}


LUA = {
    "a number loses its fraction": "return {3.99, -3.99, 0, 2^40}",
    "false and nothing are nil": "return {false, true, {}}",
    "an array ends at the first nothing": "return {1, nil, 3}",
    "nothing at all": "local a",
    "a status": "return {ok = 'fine'}",
    "an error that is returned": "return {err = 'LOST that'}",
    "an error among values": "return {1, {err = 'OOM that'}, 'x'}",
    "an error that is raised": "error({err = 'ERR that'})",
    "an error of Lua": "return nil .. 'x'",
    "an error of a command": "redis.call('HSET', KEYS[1], 'a', 1) return redis.call('LLEN', KEYS[1])",
    "an error that is caught": "redis.call('RPUSH', KEYS[1], 1) "
    "local done, why = pcall(redis.call, 'HGET', KEYS[1], 'a') return {done, type(why), (why:gsub(' .*', ''))}",
    "an error that pcall of Redis returns": "redis.call('RPUSH', KEYS[1], 1) "
    "return type(redis.pcall('GET', KEYS[1]).err)",
    "numbers as words": "redis.call('HSET', KEYS[1], 'a', 5, 'b', 2^43, 'c', -1, 'd', 0.5) "
    "return redis.call('HMGET', KEYS[1], 'a', 'b', 'c', 'd', 'e')",
    "nothing in an array is false": "return redis.call('HMGET', KEYS[1], 'a')[1] == false and 1 or 0",
    "nothing alone is false": "return redis.call('GET', KEYS[1]) == false and 1 or 0",
    "a status of a command": "return redis.call('SET', KEYS[1], 'x')",
    "digits": "return {tostring(1e15), 2^53 .. '', string.format('%d', 2^52)}",
    "sha1": "return redis.sha1hex('text')",
    "binary": "return redis.call('SET', KEYS[1], ARGV[1]) and redis.call('GET', KEYS[1])",
    "a global that nobody defined": "return nobody",
    "a global that a script makes": "made = 1",
    "writing where a script only reads": "#!lua flags=no-writes\nreturn redis.call('SET', KEYS[1], 'x')",
    "a boolean as a word": "return redis.call('SET', KEYS[1], true)",
    "the end of a part": "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {} end",
}


@pytest.mark.parametrize("source", LUA.values(), ids=LUA.keys())
def test_lua_replies_as_a_server_makes_it_reply(redis: Redis, source: str) -> None:
    source = source if source.startswith("#!") else f"#!lua\n{source}"
    store, lua = Store({}, {}, now_of(redis)), Lua()
    mine = lua.run(lua.compile(source), store, (b"key",), (b"\x00\xff",))
    try:
        real = redis.execute_command("EVAL", source, 1, b"key", b"\x00\xff", **RAW)
    except ResponseError as error:
        real = error
    assert flat(mine) == flat(real)
    assert {key: plain((b"",), value) for key, value in store.values.items()} == {
        key: plain((b"",), value) for key, value in stored(redis).items()
    }


def flat(reply: Any) -> Any:
    if isinstance(reply, ReplyError | RedisError):
        return "error"
    return [flat(item) for item in reply] if isinstance(reply, list) else reply


def test_a_key_goes_when_its_time_is_over() -> None:
    store = Store({}, {}, 1000)
    store.execute(b"SET", b"key", b"v", b"PX", b"10")
    store.set_clock(1010)
    assert store.execute(b"PTTL", b"key") == 0
    store.set_clock(1011)
    assert store.execute(b"GET", b"key") is None


def test_a_copy_shares_nothing_that_changes() -> None:
    store = Store({}, {}, 1000)
    store.execute(b"HSET", b"hash", b"a", b"1")
    store.execute(b"ZADD", b"zset", b"1", b"a")
    copy = Store(store.values, store.expires, store.now_ms)
    copy.execute(b"HSET", b"hash", b"a", b"2")
    copy.execute(b"ZINCRBY", b"zset", b"1", b"a")
    assert (store.values[b"hash"], store.values[b"zset"]) == (Hash({b"a": b"1"}), SortedSet({b"a": 1.0}))


def test_a_key_that_is_not_declared_and_a_command_that_is_not_known_end_the_search() -> None:
    lua = Lua()
    for source in ("return pcall(redis.call, 'GET', 'other')", "return pcall(redis.call, 'APPEND', KEYS[1], 'x')"):
        with pytest.raises((AssertionError, KeyError)):
            lua.run(lua.compile(f"#!lua\n{source}"), Store({}, {}, 0), (b"key",), ())
