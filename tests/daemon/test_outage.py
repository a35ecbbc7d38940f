"""Redis goes away and comes back, processes die, everything runs twice: the work goes on and is done once."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab import Lab, bodies
from proxy import LossyProxy
from redis import Redis
from servers import BINARIES, Program, Server, beat, eventually, every, worker

from tasks import cleaning
from tasks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow


class Site:
    """A persistent Redis with a worker and a beat."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.redis = Redis(port=server.port)
        self.lab = Lab(self.redis)
        self.programs: list[Program] = []
        self.environment = {"REDIS_URL": server.url} | every(0.5)

    def start(self, *options: str, beats: int = 1, workers: int = 1) -> None:
        for number in range(workers):
            self.programs.append(worker(self.folder, self.environment, f"worker{number}", *options).start())
        eventually(lambda: all("ready." in program.output for program in self.programs))
        for number in range(beats):
            self.programs.append(beat(self.folder, self.environment, f"beat{number}").start())

    @property
    def worker(self) -> Program:
        return self.programs[0]

    def works(self) -> None:
        """Wait until beat sends and the worker cleans: seen from a channel that goes."""
        self.lab.send("canary", "x")
        self.lab.idle("canary", 901)
        eventually(lambda: not self.lab.traces("canary"), 20)

    def alive(self) -> bool:
        return all(program.process and program.process.poll() is None for program in self.programs)

    def seed_idle(self, count: int) -> None:
        """Store idle channels of two messages each, straight into the layout."""
        old = (int(self.redis.time()[0]) - 10_000) * 1000
        pipeline = self.redis.pipeline(transaction=False)
        for shard in range(16):
            names = {f"{shard}-{number}": old for number in range(count // 16)}
            head = f"chat:{{{shard}}}:"
            for name in names:
                pipeline.rpush(f"{head}log:{name}", f"{old}:1", f"{old}:2")
            pipeline.zadd(head + "sizes", dict.fromkeys(names, 2))
            pipeline.hset(head + "trimmed", mapping=dict.fromkeys(names, 0))
            for index in ("heads", "updated"):  # last: here a sweep that runs already finds them
                pipeline.zadd(head + index, names)
        pipeline.execute()

    def idle_left(self) -> int:
        return sum(self.redis.zcard(f"chat:{{{shard}}}:updated") for shard in range(16))

    def swept_clean(self) -> None:
        """Wait until nothing is left, and see that no key is left that belongs to nobody."""
        eventually(lambda: self.idle_left() == 0, 60)
        kept = (b":meta", b":runs", b":shards", b":sent:0", b":sent:1")
        left = [key for key in self.redis.scan_iter("chat:*") if not key.startswith(b"chat:celery:")]
        assert [key for key in left if not key.endswith(kept) and b":lease:" not in key] == []


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    engine = "redis" if "redis" in BINARIES else "valkey"
    server = Server(engine, tmp_path, {"appendonly": "yes"}).start()
    site = Site(server, tmp_path)
    yield site
    for program in site.programs:
        program.stop()
    site.redis.close()
    server.stop()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_redis_goes_away_and_comes_back_three_times(site: Site, how: signal.Signals) -> None:
    site.start()
    for number in range(3):
        site.works()
        sent = site.lab.send(f"kept {number}", "acknowledged")
        site.server.stop(how)
        eventually(lambda: not site.server.answers())
        site.server.start()
        shorten_leases(site.redis)  # the sweep that removed the canary may have held one when Redis went
        assert list(site.lab.check("auditor", f"kept {number}", history=1)) == [sent]
        site.works()
        assert site.alive()
    assert "Traceback" not in "".join(program.output for program in site.programs)


def test_redis_dies_while_a_task_runs_and_what_was_prefetched_is_not_lost(site: Site) -> None:
    site.start()
    site.works()
    for _ in range(2):
        site.seed_idle(100_000)
        eventually(lambda: 0 < site.idle_left() < 99_000)
        assert site.redis.hlen("chat:celery:unacked") > 0
        site.server.stop(signal.SIGKILL)
        site.server.start()
        shorten_leases(site.redis)
        site.swept_clean()
        assert site.alive()


def test_redis_that_comes_back_empty_is_a_fresh_start(site: Site) -> None:
    site.start()
    site.works()
    cursor = site.lab.check("bob", "lobby").cursor
    site.lab.send_all("lobby", 3)
    site.redis.flushall()
    site.works()
    check = site.lab.check("bob", "lobby", after=cursor)
    assert (check.new, bodies(check)) == (True, [])
    assert site.lab.send("lobby", "again").id == 1
    assert bodies(site.lab.check("bob", "lobby")) == ["again"]
    assert site.alive()


def test_half_open_sockets_are_noticed(site: Site) -> None:
    proxy = LossyProxy(site.server.port)
    site.environment["REDIS_URL"] = f"redis://127.0.0.1:{proxy.port}/0"
    site.start()
    site.works()
    proxy.age += 1  # every connection is dead now, and nobody was told
    site.lab.send("canary", "x")
    site.lab.idle("canary", 901)
    eventually(lambda: not site.lab.traces("canary"), 60)
    assert site.alive()
    for program in site.programs:
        program.stop()
    proxy.close()


@pytest.mark.parametrize("victim", ["worker", "child"])
def test_a_sweep_killed_in_the_middle_is_completed_by_the_next(site: Site, victim: str) -> None:
    site.seed_idle(60_000)
    site.start()
    eventually(lambda: 0 < site.idle_left() < 59_000)
    assert site.worker.process
    pid = site.worker.process.pid
    if victim == "child":
        for child in children(pid):
            os.kill(child, signal.SIGKILL)
    else:
        os.killpg(pid, signal.SIGKILL)
        site.worker.process.wait()
        site.programs[0] = worker(site.folder, site.environment, "worker9").start()
    left = site.idle_left()
    assert left > 0
    shorten_leases(site.redis)
    site.swept_clean()


def test_a_killed_beat_leaves_nothing_behind(site: Site) -> None:
    site.start()
    site.works()
    assert site.programs[1].process
    os.kill(site.programs[1].process.pid, signal.SIGKILL)
    site.programs[1].process.wait()
    site.programs[1] = beat(site.folder, site.environment, "beat9").start()
    site.works()


SWEPT = "clean_channels: removed "  # said once a run


def test_two_beats_and_ten_workers_do_the_work_once(site: Site) -> None:
    site.seed_idle(30_000)
    site.start("--pool=solo", beats=2, workers=10)
    site.swept_clean()
    reports = [line for program in site.programs for line in program.output.splitlines() if SWEPT in line]
    counts = [line.split("removed ")[1].split(" channels")[0] for line in reports if " channels, " in line]
    removed = sum(int(count.replace(",", "")) for count in counts)
    assert removed == 30_000
    assert site.alive()


def test_the_same_cleaning_called_at_once_reports_already_running(site: Site) -> None:
    site.seed_idle(30_000)
    first_seen: list[cleaning.Report] = []

    def second(_done: int, _total: int) -> None:
        if not first_seen:
            first_seen.append(cleaning.clean_channels(site.redis, settings=Settings()))

    report = cleaning.clean_channels(site.redis, settings=Settings(), progress=second)
    assert first_seen[0].busy == 1
    assert report.channels + first_seen[0].channels == 30_000


def shorten_leases(redis: Redis) -> None:
    """Force the time: a lease lapses 30 s after the last sign of life."""
    for lease in redis.keys("*lease*"):
        left = redis.pttl(lease)
        assert 0 < left <= 30_000 or left == -2  # given back meanwhile
        redis.pexpire(lease, 1)


def children(pid: int) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int((process / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(process.name))
        except OSError:
            continue
    return found
