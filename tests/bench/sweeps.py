"""Rows of the sweeps: how fast, what nothing costs, how long one call holds the server, and what senders feel."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

from figures import BODY, FORK, Bench
from port2011 import Port2011
from seeding import seed, seed_bare, seed_giant, seed_port

from chat import Chat
from tasks.cleaning import clean_backlog, clean_channels, clean_clients
from tasks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from redis import Redis

SLOW_US = 200  # only calls longer than this are looked at
LEAST = f"{SLOW_US / 1000} ms is the least that is looked at"
BATCH = 100  # channels a pipeline of the bare removal
NOTHING = {"channel_timeout": 5_000, "client_timeout": 5_000, "backlog": 10}
ONE_IN_A_HUNDRED = {"client_timeout": 300, "backlog": 2, "channel_timeout": 900}
ALL = {"client_timeout": 0, "backlog": 1, "channel_timeout": 0}
SWEEPS: dict[str, Any] = {"client_timeout": clean_clients, "backlog": clean_backlog, "channel_timeout": clean_channels}


def sweeps(bench: Bench) -> None:
    """Seed once for each size and round; then nothing is due, one in a hundred, and all, by the limits alone."""
    sizes = {1_000: 2} if bench.quick else {10_000: 5, 100_000: 3, 1_000_000: 1}
    idle: dict[int, list[float]] = {}
    with bench.client() as redis:
        for size, rounds in sizes.items():
            rates: dict[str, list[float]] = {}
            slow: list[list[float]] = []
            ratios: dict[str, list[float]] = {"of the 2011 port": [], "of bare UNLINK + ZREM": []}
            for _ in range(rounds):
                port = _port(redis, 200 if bench.quick else 2_000)
                bare = _bare(redis, min(size, 100_000))
                _forget_slow(redis)
                seed(redis, size, due_every=100, messages=2, due_messages=3, clients=True)
                idle[size] = _nothing(redis, rounds=20)
                _watch_slow(redis)
                for share, limits in (("1 % due", ONE_IN_A_HUNDRED), ("all due", ALL)):
                    for name, limit in limits.items():
                        rate, report = _swept(redis, SWEEPS[name], name, limit)
                        assert report.completed
                        rates.setdefault(f"{report.sweep}, {share}", []).append(rate)
                slow.append(_slow_ms(redis))
                ours = rates["clean_channels, all due"][-1]
                ratios["of the 2011 port"].append(ours / port)
                ratios["of bare UNLINK + ZREM"].append(ours / bare)
            row = f"sweeps, {size:,} channels"
            for name, limit in (("of the 2011 port", 50), ("of bare UNLINK + ZREM", 1 / 3)):
                bench.add(row, f"clean_channels, rate, {name}", ratios[name], limit=limit, at_least=True)
            for name, samples in rates.items():
                bench.add(row, name, samples, "channels/s")
            _add_slow(bench, row, "", slow)
            bench.add(row, "nothing due, three sweeps", idle[size], "ms", limit=3)
        bench.add("sweeps", "nothing due, the 2011 port's pass over 2,000 channels", _port_idle(redis), "ms")
    if len(idle) > 1:
        ratio = [statistics.median(idle[max(idle)]) / statistics.median(idle[min(idle)])]
        bench.add("sweeps", "nothing due, time at 1,000,000 of that at 10,000", ratio, limit=1.25)


def _nothing(redis: Redis, rounds: int) -> list[float]:
    took = []
    for _ in range(rounds):
        start = time.perf_counter()
        for name, clean in SWEEPS.items():
            assert clean(redis, **{name: NOTHING[name]}).completed
        took.append(1000 * (time.perf_counter() - start))
    return took


def _swept(redis: Redis, clean: Callable[..., Any], name: str, limit: float) -> tuple[float, Any]:
    handled = [0]

    def progress(done: int, _: int) -> None:
        handled[0] = done

    start = time.perf_counter()
    report = clean(redis, progress=progress, **{name: limit})
    return handled[0] / (time.perf_counter() - start), report


def _port(redis: Redis, count: int) -> float:
    seed_port(redis, count)
    start = time.perf_counter()
    assert Port2011(redis).clean_channels(900) == count
    return count / (time.perf_counter() - start)


def _port_idle(redis: Redis) -> list[float]:
    seed_port(redis, 2_000, updated=time.time())
    took = []
    for _ in range(3):
        start = time.perf_counter()
        assert Port2011(redis).clean() == 0
        took.append(1000 * (time.perf_counter() - start))
    return took


def _bare(redis: Redis, count: int) -> float:
    seed_bare(redis, count)
    return _removed_bare(redis, count)


def _removed_bare(redis: Redis, count: int) -> float:
    start = time.perf_counter()
    for first in range(0, count, BATCH):
        pipeline = redis.pipeline(transaction=False)
        for number in range(first, min(first + BATCH, count)):
            pipeline.unlink(f"bare:log:channel-{number}")
            pipeline.zrem("bare:updated", f"channel-{number}")
        pipeline.execute()
    return count / (time.perf_counter() - start)


def _forget_slow(redis: Redis) -> None:
    """Empty the slow log, before the seeding.

    It frees thousands of short strings. glibc's malloc, which the embedded Valkey is built with, keeps those in lists
    until a large allocation needs them, and then merges them all at once: 15 ms and more in one call. The seeding
    makes such an allocation, so no sweep pays for it.
    """
    redis.config_set("slowlog-log-slower-than", -1)
    redis.slowlog_reset()


def _watch_slow(redis: Redis) -> None:
    redis.config_set("slowlog-max-len", 100_000)
    redis.config_set("slowlog-log-slower-than", SLOW_US)


def _slow_ms(redis: Redis) -> list[float]:
    """Return the calls longer than the threshold since `_forget_slow`, sorted; the threshold first."""
    redis.config_set("slowlog-log-slower-than", -1)
    slow = redis.slowlog_get(100_000)
    return sorted(
        [SLOW_US / 1000]
        + [int(entry["duration"]) / 1000 for entry in slow if not entry["command"].startswith((b"INFO", b"SLOWLOG"))]
    )


def _add_slow(bench: Bench, row: str, what: str, slow: list[list[float]]) -> None:
    """Add the longest call, and the one that 99.9 % of them stay below.

    Their time is that of the wall. A server that the system takes off its core for a moment stands in the list
    with whatever it was at, however small; what a script itself takes shows in both figures.
    """
    bench.add(row, f"{what}longest call", [calls[-1] for calls in slow], "ms", limit=2, note=LEAST)
    most = [calls[min(int(len(calls) * 0.999), len(calls) - 1)] for calls in slow]
    bench.add(row, f"{what}99.9 % of calls above 0.2 ms", most, "ms", limit=2)


def giants(bench: Bench) -> None:
    """One channel with a million messages, one with a hundred thousand clients: no call may take long."""
    messages, clients = (20_000, 2_000) if bench.quick else (1_000_000, 100_000)
    off = Settings(hard_backlog=0)
    cases: dict[str, tuple[int, int, Any]] = {
        f"clean_backlog of {messages:,} messages": (messages, 0, lambda redis: clean_backlog(redis, settings=off)),
        f"clean_channels of {messages:,} messages": (
            messages,
            0,
            lambda redis: clean_channels(redis, channel_timeout=0, settings=off),
        ),
        f"clean_clients of {clients:,} clients": (1, clients, clean_clients),
    }
    with bench.client() as redis:
        for name, (messages, clients, clean) in cases.items():
            slow = []
            for _ in range(1 if bench.quick else 3):
                _forget_slow(redis)
                seed_giant(redis, "giant", messages, clients)
                _watch_slow(redis)
                assert clean(redis).completed
                slow.append(_slow_ms(redis))
            _add_slow(bench, "one giant channel", f"{name}, ", slow)


def latency(bench: Bench) -> None:
    """Send from another process without pause: alone, then while a sweep runs; and while the bare removal runs."""
    count = 2_000 if bench.quick else 60_000
    idle, during, beside, ratios, bare_ratios = [], [], [], [], []
    with bench.client() as redis:
        for _ in range(2 if bench.quick else 7):
            seed(redis, count)
            mine, sender = FORK.Pipe()
            process = FORK.Process(target=_send_until_told, args=(bench, sender))
            process.start()
            time.sleep(0.1 if bench.quick else 1.0)  # the idle time that is measured
            while not (p99 := _p99_ms(mine)):  # its process may take longer to start
                pass
            idle.append(p99)
            clean_channels(redis)
            during.append(_p99_ms(mine))
            seed_bare(redis, count)
            _p99_ms(mine)  # not while it is seeded
            _removed_bare(redis, count)
            beside.append(_p99_ms(mine))
            mine.send("end")
            process.join()
            ratios.append(during[-1] / idle[-1])
            bare_ratios.append(beside[-1] / idle[-1])
    raw = {"idle ms": statistics.median(idle), "during ms": statistics.median(during)}
    bench.add("sends beside a sweep", "p99 while clean_channels runs, of idle p99", ratios, limit=4, raw=raw)
    raw = {"idle ms": statistics.median(idle), "during ms": statistics.median(beside)}
    bench.add("sends beside a sweep", "p99 while bare UNLINK + ZREM runs, of idle p99", bare_ratios, raw=raw)


def _p99_ms(sender: Connection) -> float:
    """Ask the sender for the p99 of what it sent since it was last asked."""
    sender.send("tell")
    p99: float = sender.recv()
    return p99


def _send_until_told(bench: Bench, asked: Connection) -> None:
    took: list[float] = []
    with bench.client() as redis:
        chat = Chat(redis)
        chat.send_message("lobby", BODY)
        while True:
            while not asked.poll():
                for _ in range(10):
                    start = time.perf_counter()
                    chat.send_message("lobby", BODY)
                    took.append(1000 * (time.perf_counter() - start))
            if asked.recv() == "end":
                return
            asked.send(sorted(took)[int(len(took) * 0.99)] if took else 0.0)
            took.clear()


def archive(bench: Bench) -> None:
    """Remove idle channels of ten messages each: for good, and with a folder that keeps them."""
    count = 500 if bench.quick else 10_000
    rates: dict[str, list[float]] = {"for good": [], "kept": []}
    with bench.client() as redis:
        for turn in range(2 if bench.quick else 5):
            for name, folder in (("for good", ""), ("kept", str(bench.folder / f"archive-{turn}"))):
                seed(redis, count, messages=10, due_messages=10)
                start = time.perf_counter()
                report = clean_channels(redis, settings=Settings(archive=folder))
                assert (report.messages, report.archived) == (10 * count, 10 * count if folder else 0)
                rates[name].append(report.messages / (time.perf_counter() - start))
    ratios = [good / kept for good, kept in zip(rates["for good"], rates["kept"], strict=True)]
    bench.add("archive", "clean_channels, ten messages each, kept in a folder", rates["kept"], "messages/s")
    bench.add("archive", "clean_channels, time with a folder, of without", ratios)
