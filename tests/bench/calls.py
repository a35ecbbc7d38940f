"""Rows of single calls: send, check, many at once, and what a call costs the server."""

from __future__ import annotations

import json
import time
from itertools import count, cycle
from typing import TYPE_CHECKING, Any

from figures import BODY, Bench, crew, in_turn, timed
from peer import INSTALLED, Peer
from port2011 import Port2011

from chat import Chat

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis

CHANNELS = [f"channel-{number}" for number in range(100)]
PAYLOAD = json.dumps(BODY, separators=(",", ":"))
REPLY_HEAD = 40  # bytes of a check's reply beside its messages
ENTRY_HEAD = 14  # the time before each message
INSIDE = {"get", "del", "exec"}  # commands of redis-py's lock script, and EXEC: their time is counted elsewhere


def send(bench: Bench) -> None:
    with bench.client() as redis:
        chat, port = Chat(redis), Port2011(redis)
        names = cycle(CHANNELS)
        candidates: dict[str, Any] = {
            "chat": lambda seconds: timed(lambda: chat.send_message(next(names), BODY), seconds),
            "bare ECHO": lambda seconds: timed(lambda: redis.echo(PAYLOAD), seconds),
            "the 2011 port": lambda seconds: timed(lambda: port.send(next(names), BODY), seconds),
        }
        peer = Peer(bench.server.port) if INSTALLED else None
        if peer:
            candidates["channels_redis group_send"] = lambda seconds: peer.send(BODY, seconds)
        rates = in_turn(bench, candidates, redis.flushall)
        bench.compare("send", "chat", rates, {"bare ECHO": (1.5, False), "the 2011 port": (3.5, True)})
        if peer:
            peer.close()


def check(bench: Bench) -> None:
    for new in (0, 1, 10):
        _check(bench, new)


def _check(bench: Bench, new: int) -> None:
    """Two hundred clients of one channel each ask once what is new."""
    clients = [f"client-{number}" for number in range(20 if bench.quick else 200)]
    echo = "x" * (REPLY_HEAD + new * (ENTRY_HEAD + len(PAYLOAD)))
    peer = Peer(bench.server.port) if INSTALLED and new == 1 else None

    def asking(say: Callable[[], object], ask: Callable[[str], Any]) -> Callable[[float], float]:
        def work(_: float) -> float:
            for _ in range(new):
                say()
            start = time.perf_counter()
            got = [len(tuple(ask(who))) for who in clients]
            took = time.perf_counter() - start
            assert got == [new] * len(clients)
            return len(clients) / took

        return work

    with bench.client() as redis:
        chat, port = Chat(redis), Port2011(redis)

        def connect() -> None:
            redis.flushall()
            for who in clients:
                chat.check_messages(who, "lobby")
                port.check(who, "lobby")

        candidates: dict[str, Callable[[float], float]] = {
            "chat": asking(lambda: chat.send_message("lobby", BODY), lambda who: chat.check_messages(who, "lobby")),
            "bare ECHO": lambda seconds: timed(lambda: redis.echo(echo), seconds / 4),
            "the 2011 port": asking(lambda: port.send("lobby", BODY), lambda who: port.check(who, "lobby")),
        }
        if peer:
            candidates["channels_redis receive"] = lambda _: peer.receive(BODY, 200)
        rates = in_turn(bench, candidates, connect)
    bench.compare(f"check, {new} new", "chat", rates, {"bare ECHO": (1.5, False), "the 2011 port": (6, True)})
    if peer:
        peer.close()


def senders(bench: Bench) -> None:
    size = 4 if bench.quick else 16

    def sender(make: Callable[[Redis], Callable[[], object]]) -> Any:
        return lambda seconds: crew(size, lambda _: make(bench.client()), max(seconds, 0.1) * 2)

    def ours(redis: Redis) -> Callable[[], object]:
        chat = Chat(redis)
        return lambda: chat.send_message("lobby", BODY)

    with bench.client() as redis:
        rates = in_turn(
            bench,
            {
                "chat": sender(ours),
                "bare ECHO": sender(lambda redis: lambda: redis.echo(PAYLOAD)),
                "the 2011 port": sender(lambda redis: lambda: Port2011(redis).send("lobby", BODY)),
                "the 2011 port, 0.1 s between tries": sender(
                    lambda redis: lambda: Port2011(redis, retry=0.1).send("lobby", BODY)
                ),
            },
            redis.flushall,
        )
    bench.compare(f"{size} sender processes, one channel", "chat", rates, {"the 2011 port": (15, True)})


def pollers(bench: Bench) -> None:
    for size in (1, 4) if bench.quick else (1, 4, 16, 64):

        def ours(number: int) -> Callable[[], object]:
            chat = Chat(bench.client())
            return lambda: chat.check_messages(f"client-{number}", "lobby")

        def bare(_: int) -> Callable[[], object]:
            redis = bench.client()
            return lambda: redis.echo("x" * REPLY_HEAD)

        def port(number: int) -> Callable[[], object]:
            old = Port2011(bench.client())
            return lambda: old.check(f"client-{number}", "lobby")

        def polling(begin: Any, size: int = size) -> Any:
            return lambda seconds: crew(size, begin, max(seconds, 0.1) * 2)

        with bench.client() as redis:
            candidates = {"chat": polling(ours), "bare ECHO": polling(bare), "the 2011 port": polling(port)}
            rates = in_turn(bench, candidates, redis.flushall)
        bench.compare(f"{size} polling processes", "chat", rates, {})


def check_many(bench: Bench) -> None:
    with bench.client() as redis:
        chat = Chat(redis)
        if not hasattr(chat, "check_many"):
            return
        redis.flushall()
        for channel in CHANNELS:
            chat.send_message(channel, BODY)
        rates = in_turn(
            bench,
            {
                "check_many": lambda seconds: timed(lambda: chat.check_many("bob", CHANNELS), seconds),
                "one check": lambda seconds: timed(lambda: chat.check_messages("bob", CHANNELS[0]), seconds),
            },
        )
        bench.compare("check_many, 100 channels, nothing new", "check_many", rates, {"one check": (15, False)})


def cpu(bench: Bench) -> None:
    calls = 50 if bench.quick else 1_000
    number = count()
    with bench.client() as redis:
        chat, port = Chat(redis), Port2011(redis)
        pairs: dict[str, tuple[Any, Any, float]] = {
            "send": (
                lambda: chat.send_message(CHANNELS[next(number) % 100], BODY),
                lambda: port.send(CHANNELS[next(number) % 100], BODY),
                1 / 2,
            ),
            "check, nothing new": (
                lambda: chat.check_messages("bob", CHANNELS[next(number) % 100]),
                lambda: port.check("bob", CHANNELS[next(number) % 100]),
                1 / 7,
            ),
        }
        redis.flushall()
        for channel in CHANNELS:
            for _ in range(10 if bench.quick else 100):  # what a cleaned channel holds
                chat.send_message(channel, BODY)
                port.send(channel, BODY)
            chat.check_messages("bob", channel)
            port.check("bob", channel)
        for name, (ours, theirs, limit) in reversed(pairs.items()):  # checks first: sends make something new
            spent = [(_usec(redis, ours, calls, lock=False), _usec(redis, theirs, calls, lock=True)) for _ in range(5)]
            for index, what in enumerate(("time in commands", "process time, network included")):
                mine, other = ([pair[side][index] for pair in spent] for side in (0, 1))
                raw = {"chat us": sorted(mine)[2], "port us": sorted(other)[2]}
                ratios = [ours / theirs for ours, theirs in zip(mine, other, strict=True)]
                bench.add(f"server CPU, {name}", f"{what}, of the 2011 port", ratios, limit=limit, raw=raw)


def _usec(redis: Redis, call: Callable[[], object], calls: int, *, lock: bool) -> tuple[float, float]:
    """Return the microseconds per call in commands, and of the whole server process.

    A script's own time contains that of the commands in it; EXEC's that of the commands it runs.
    """
    redis.config_resetstat()
    before = redis.info("cpu")
    for _ in range(calls):
        call()
    after, stats = redis.info("cpu"), redis.info("commandstats")
    spent = {name.removeprefix("cmdstat_"): entry["usec"] for name, entry in stats.items()}
    counted = set(spent) - INSIDE if lock else {"evalsha"}
    in_commands = sum(spent[name] for name in counted if not name.startswith(("config", "info")))
    process = sum(after[name] - before[name] for name in ("used_cpu_user", "used_cpu_sys"))
    return in_commands / calls, process * 1e6 / calls
