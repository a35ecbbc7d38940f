"""Broker, results and chat in one Redis that is full to the brim: it must free itself."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from lab import Lab, bodies
from redis import Redis
from redis.exceptions import ResponseError
from servers import BINARIES, Program, Server, beat, eventually, every, run, worker

from chat import ChatFullError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

BACKLOG = 5


class Full:
    """A small server, filled by messages to the last byte."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.redis = Redis(port=server.port)
        self.lab = Lab(self.redis, backlog=BACKLOG, hard_backlog=0, dedupe_seconds=3600)  # no token lapses here
        self.environment = {"REDIS_URL": server.url, "CHAT_BACKLOG": str(BACKLOG), "CHAT_HARD_BACKLOG": "0"} | every(2)
        self.sent: dict[str, list[str]] = defaultdict(list)
        self.count = 0

    def send(self) -> None:
        channel = f"channel {self.count % 200}"
        self.lab.send(channel, f"{self.count} {'x' * 5000}")
        self.sent[channel].append(f"{self.count} {'x' * 5000}")
        self.count += 1

    def fill(self) -> None:
        while self.sends_work():
            pass

    def sends_work(self) -> bool:
        try:
            self.send()
        except ChatFullError:
            return False
        return True

    def lost(self) -> list[str]:
        """Return the channels that lack one of the newest messages which the rules keep."""
        return [
            channel
            for channel, sent in self.sent.items()
            if bodies(self.lab.chat.read_history(channel, limit=BACKLOG)) != sent[-BACKLOG:]  # needs no memory
        ]

    def celery(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run("-m", "celery", "-A", "tasks", *arguments, **self.environment)


@pytest.fixture(params=BINARIES)
def full(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Full]:
    options = {"maxmemory": "10mb", "maxmemory-policy": "noeviction", "appendonly": "yes"}
    server = Server(request.param, tmp_path, options).start()
    full = Full(server)
    yield full
    full.redis.close()
    server.stop()


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    programs: list[Program] = []
    yield programs
    for program in programs:
        program.stop()


def test_a_refused_send_stores_nothing_and_checks_go_on(full: Full) -> None:
    full.lab.check("bob", "channel 0")
    full.fill()
    channel = f"channel {full.count % 200}"
    traces, size = full.lab.traces(channel), full.redis.dbsize()
    with pytest.raises(ChatFullError, match="this attempt stored nothing"):
        full.lab.send(channel, "refused", key="once")
    assert (full.lab.traces(channel), full.redis.dbsize()) == (traces, size)
    assert len(full.lab.check("bob", "channel 0")) > 0
    with pytest.raises(ChatFullError, match="this client is not known in channel 'channel 1' yet"):
        full.lab.check("a new client", "channel 1")
    with pytest.raises(ResponseError, match="maxmemory"):
        full.redis.set("any other", "write")


def test_checks_of_the_unknown_do_not_grow_a_full_redis(full: Full) -> None:
    full.fill()
    used, size = full.redis.info("memory")["used_memory"], full.redis.dbsize()
    for number in range(2000):
        with pytest.raises(ChatFullError):
            full.lab.check(f"new {number}", f"invented {number}")
    grown = full.redis.info("memory")["used_memory"] - used
    assert (full.redis.dbsize(), grown < 200_000) == (size, True), grown


def test_a_full_redis_that_never_held_a_chat_refuses_in_the_same_words(full: Full) -> None:
    full.redis.config_set("maxmemory", "1")
    with pytest.raises(ChatFullError, match="this attempt stored nothing"):
        full.lab.send("lobby", "x")
    with pytest.raises(ChatFullError, match="not known in channel 'lobby' yet"):
        full.lab.check("bob", "lobby")
    assert not full.redis.dbsize()
    full.redis.config_set("maxmemory", "0")
    assert full.lab.send("lobby", "x").id == 1


def test_beat_and_worker_free_a_full_redis_with_no_human_and_lose_nothing_the_rules_keep(
    full: Full, programs: list[Program], tmp_path: Path
) -> None:
    consumer = worker(tmp_path, full.environment).start()
    programs.append(consumer)
    eventually(lambda: "ready." in consumer.output)
    full.fill()
    ticker = beat(tmp_path, full.environment).start()
    programs.append(ticker)
    eventually(full.sends_work)
    assert full.lost() == []
    eventually(lambda: "Redis is full, beat cleans by itself: clean_backlog: removed" in ticker.output)
    seen = len(consumer.output)
    eventually(lambda: "succeeded" in consumer.output[seen:])
    for _ in range(3):  # and again, and again
        full.fill()
        eventually(full.sends_work)
    assert full.lost() == []
    assert consumer.process
    assert consumer.process.poll() is None


def test_a_worker_restarted_while_redis_is_full_lives_and_goes_on(
    full: Full, programs: list[Program], tmp_path: Path
) -> None:
    full.fill()
    consumer = worker(tmp_path, full.environment).start()
    programs.append(consumer)
    eventually(lambda: "maxmemory" in consumer.output)
    assert full.celery("clean", "all", "--now").returncode == 0
    eventually(lambda: "ready." in consumer.output)
    called = full.celery("call", "tasks.clean_clients")
    eventually(lambda: called.stdout.strip()[:8] in consumer.output)
    assert full.lost() == []


def test_logs_stay_readable_while_nothing_can_be_freed(full: Full, programs: list[Program], tmp_path: Path) -> None:
    full.environment["CHAT_BACKLOG"] = "1000000"  # the rules keep everything
    full.fill()
    consumer, ticker = worker(tmp_path, full.environment), beat(tmp_path, full.environment)
    programs += [consumer.start(), ticker.start()]
    refusals = full.redis.info("errorstats")["errorstat_OOM"]["count"]
    eventually(lambda: full.redis.info("errorstats")["errorstat_OOM"]["count"] > refusals + 30)
    lines = [line for program in programs for line in program.output.splitlines() if " full" in line or "maxm" in line]
    assert 2 <= len(lines) <= 10
    assert all(len(line) < 400 for line in lines)
    for program in programs:
        assert "Traceback" not in program.output
        assert program.process
        assert program.process.poll() is None


@pytest.mark.parametrize("dry_run", [True, False])
def test_an_operator_frees_it_by_hand_without_a_broker(full: Full, dry_run: bool) -> None:  # noqa: FBT001  a case
    full.fill()
    before = full.redis.dbsize()
    result = full.celery("clean", "backlog", "--now", "--backlog", "2", "--json", *(["--dry-run"] if dry_run else []))
    report: dict[str, Any] = json.loads(result.stdout)
    assert (result.returncode, report["messages"] > 100, report["dry_run"]) == (0, True, dry_run)
    assert full.redis.dbsize() >= before - 2
    assert full.sends_work() != dry_run


def test_an_evicting_policy_is_said_at_the_start(full: Full, programs: list[Program], tmp_path: Path) -> None:
    full.redis.config_set("maxmemory-policy", "allkeys-lru")
    programs += [worker(tmp_path, full.environment).start(), beat(tmp_path, full.environment).start()]
    for program in programs:
        eventually(lambda program=program: "maxmemory-policy is allkeys-lru" in program.output)
