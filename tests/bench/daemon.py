"""Rows of the daemon: from beat's tick to the report, and a fleet at one large sweep."""

from __future__ import annotations

import re
import tempfile
import time
from datetime import datetime
from pathlib import Path

from figures import FORK, Bench
from seeding import seed
from servers import beat, eventually, every, worker

from tasks.cleaning import clean_channels

TICK = re.compile(r"^(\S+ \S+),(\d{3}) INFO .*Sending due task clean_channels", re.MULTILINE)


def tick_to_report(bench: Bench) -> None:
    """Real beat and worker, nothing due: from beat's log line for a task just queued to the time in its record."""
    wanted = 3 if bench.quick else 12
    with tempfile.TemporaryDirectory() as name, bench.client() as redis:
        redis.flushall()
        folder = Path(name)
        environment = {"REDIS_URL": bench.server.url, "CHAT_HEARTBEAT_DIR": name} | every(1)
        programs = [worker(folder, environment).start(), beat(folder, environment).start()]
        ended: set[int] = set()

        def enough() -> bool:
            if record := redis.hget("chat:runs", "clean_channels:ended"):
                ended.add(int(record.split()[0]))
            return len(ended) > wanted

        try:
            eventually(enough, 60)
        finally:
            for program in reversed(programs):
                program.stop()
        ticks = [_ms(*match) for match in TICK.findall(programs[1].output)]
    took = [end - max(tick for tick in ticks if tick <= end) for end in sorted(ended)[1:]]
    bench.add("the daemon", "beat's task in the queue to its report", took, "ms", note="clean_channels, nothing due")


def _ms(second: str, milli: str) -> float:
    return datetime.fromisoformat(second).timestamp() * 1000 + int(milli)  # a log has local time


def fleet(bench: Bench) -> None:
    """So many worker processes, each with its shards as CHAT_CLEAN_PARTS gives them."""
    count = 4_000 if bench.quick else 1_000_000
    alone = 0.0
    with bench.client() as redis:
        for size in (1, 2, 4):
            seed(redis, count)
            before, start = redis.info("cpu"), time.perf_counter()
            crowd = [FORK.Process(target=_part, args=(bench, part, size)) for part in range(size)]
            for process in crowd:
                process.start()
            for process in crowd:
                process.join()
            took = time.perf_counter() - start
            after = redis.info("cpu")
            assert not any(process.exitcode for process in crowd)
            assert redis.exists(*(f"chat:{{{shard}}}:updated" for shard in range(16))) == 0
            used = sum(after[name] - before[name] for name in ("used_cpu_user", "used_cpu_sys"))
            alone = alone or took
            raw = {"channels /s": count / took, "server CPU share": used / took}
            what = f"{size} workers, rate, of one"
            bench.add(f"a fleet, {count:,} due channels", what, [alone / took], note="one round", raw=raw)


def _part(bench: Bench, part: int, of: int) -> None:
    with bench.client() as redis:
        assert clean_channels(redis, shards=range(part, 16, of)).completed
