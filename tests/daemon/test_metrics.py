"""The chat's metrics on the page of a real Flower."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING

import pytest
from lab import Lab
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from servers import Program, Server, eventually, free_port, run, worker

from tasks.archive.restore import restore
from tasks.cleaning import clean_backlog, clean_channels, clean_clients
from tasks.metrics import NAMES
from tasks.schedule import longest_interval
from tasks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("metrics")]


class Flower:
    """A Flower of the app, and what Prometheus would read of it."""

    def __init__(self, server: Server, folder: Path, **environment: str) -> None:
        self.server, self.port = server, free_port()
        arguments = ["-m", "celery", "-A", "tasks", "flower", "--address=127.0.0.1", f"--port={self.port}"]
        self.program = Program("flower", arguments, {"REDIS_URL": server.url} | environment, folder).start()
        eventually(lambda: "Visit me at" in self.program.output)

    def page(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=20) as answer:
            assert answer.status == 200
            return str(answer.read().decode())

    def row(self) -> str:
        """Return state and result of the one task on its page."""
        words = {"draw": 1, "start": 0, "length": 9, "order[0][column]": 0, "columns[0][data]": "name"}
        query = urllib.parse.urlencode(words)
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/tasks/datatable?{query}", timeout=20) as answer:
            rows = json.loads(answer.read())["data"]
        return " ".join(f"{row['state']} {row['result']}" for row in rows)

    def metrics(self) -> dict[str, float]:
        """Return the chat's samples, those of a task as ``name task``."""
        return {
            " ".join((sample.name, *sample.labels.values())): sample.value
            for family in text_string_to_metric_families(self.page())
            for sample in family.samples
            if sample.name.startswith("chat_")
        }


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server("valkey", tmp_path_factory.mktemp("metrics"), {"maxmemory": "100mb"}).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def flower(own: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flower]:
    flower = Flower(own, tmp_path_factory.mktemp("flower"))
    yield flower
    flower.program.stop()


@pytest.fixture
def lab(own: Server) -> Iterator[Lab]:
    with Redis(port=own.port) as redis:
        redis.flushdb()
        yield Lab(redis)


def test_what_the_page_says_is_what_stats_say(flower: Flower, lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.send_all("lobby", 105)
    lab.send_all("old", 3)
    lab.idle("old", 1000)
    for clean in (clean_backlog, clean_clients):
        clean(lab.redis)
    lab.redis.rpush("chat:celery:pollchat", "a task")
    told = json.loads(run("-m", "celery", "-A", "tasks", "stats", "--json", REDIS_URL=flower.server.url).stdout)
    found = flower.metrics()
    lab.redis.delete("chat:celery:pollchat")
    assert [found[f"chat_{name}"] for name in ("up", "channels", "messages", "clients")] == [1, 2, 103, 1]
    for name in ("channels", "messages", "clients"):
        assert found[f"chat_{name}"] == told[name]
    assert (found["chat_messages_sent_total"], found["chat_messages_removed_total"]) == (told["sent"], told["removed"])
    assert (found["chat_queue_length"], found["chat_queue_unacked"]) == (told["queue"]["waiting"], 0) == (1, 0)
    assert found["chat_redis_memory_limit_bytes"] == told["memory_limit"] == 100 * 2**20
    assert found["chat_redis_memory_used_bytes"] == pytest.approx(told["memory_used"], rel=0.2)
    for name, sweep in told["sweeps"].items():
        task = f"tasks.{name}"
        assert found[f"chat_task_due_channels {task}"] == sweep["due"]
        assert found[f"chat_task_overdue_seconds {task}"] == pytest.approx(sweep["overdue"], abs=60)
        assert found[f"chat_task_interval_seconds {task}"] == sweep["interval"]
        assert found[f"chat_task_runs_total {task}"] == sweep["last"]["runs"]
        assert found[f"chat_task_failures_total {task}"] == 0
    assert found["chat_task_last_success_age_seconds tasks.clean_backlog"] < 100
    assert "chat_task_last_success_age_seconds tasks.clean_channels" not in found
    assert found["chat_task_overdue_seconds tasks.clean_channels"] == pytest.approx(130, abs=30)


def test_removed_totals_only_rise(flower: Flower, lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.send_all("lobby", 3)
    clean_channels(lab.redis, channel_timeout=0)
    clean_clients(lab.redis, client_timeout=0)
    clean_channels(lab.redis)
    found = flower.metrics()
    removed = [found[f"chat_{what}_removed_total"] for what in ("channels", "messages", "clients")]
    assert (removed, found["chat_messages"]) == ([1, 3, 1], 0)


def test_what_comes_back_is_counted_by_itself(flower: Flower, lab: Lab, tmp_path: Path) -> None:
    own = Lab(lab.redis, archive=str(tmp_path / "archive"), backlog=3)
    own.send_all("lobby", 10)
    clean_backlog(lab.redis, settings=own.settings)
    restore(lab.redis, tmp_path / "archive", settings=own.settings)
    found = flower.metrics()
    counters = [found[f"chat_messages_{what}_total"] for what in ("sent", "removed", "restored")]
    assert (counters, found["chat_messages"]) == ([10, 7, 7], 10)


def test_every_name_is_known_and_none_is_missing(flower: Flower, lab: Lab) -> None:
    for clean in (clean_channels, clean_backlog, clean_clients):
        clean(lab.redis)
    assert {name.split()[0] for name in flower.metrics()} == set(NAMES)


def test_the_page_is_well_formed_for_prometheus(flower: Flower, lab: Lab) -> None:
    assert not lab.redis.dbsize()
    ours = [line for line in flower.page().splitlines() if re.match(r"(# (HELP|TYPE) )?chat_", line)]
    if promtool := shutil.which("promtool"):
        page = "\n".join(ours) + "\n"
        result = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stderr) == (0, "")
    helped = {line.split()[2] for line in ours if line.startswith("# HELP")}
    assert all(name in helped for name in NAMES if "last_success" not in name or name in helped)


def test_while_redis_is_away_only_up_is_there_and_says_so(own: Server, tmp_path: Path) -> None:
    other = Server("valkey", tmp_path).start()
    flower = Flower(other, tmp_path)
    assert flower.metrics()["chat_up"] == 1
    other.stop()
    assert flower.metrics() == {"chat_up": 0}
    other.start()
    assert eventually(lambda: flower.metrics()["chat_up"] == 1)
    assert own.answers()
    flower.program.stop()
    other.stop()


def test_while_only_the_broker_is_away_only_the_queue_is_missing(own: Server, tmp_path: Path) -> None:
    broker = Server("valkey", tmp_path).start()
    flower = Flower(own, tmp_path, CHAT_BROKER_URL=broker.url, CHAT_RESULT_URL=broker.url)
    assert "chat_queue_length" in flower.metrics()
    broker.stop()
    found = flower.metrics()
    assert (found["chat_up"], "chat_channels" in found, "chat_queue_length" in found) == (1, True, False)
    flower.program.stop(signal.SIGKILL)  # else it waits for its broker


def test_without_a_limit_of_memory_there_is_no_limit(flower: Flower, lab: Lab) -> None:
    lab.redis.config_set("maxmemory", "0")
    assert "chat_redis_memory_limit_bytes" not in flower.metrics()
    lab.redis.config_set("maxmemory", "100mb")


@pytest.mark.parametrize(
    ("every", "longest"),
    [(30.0, 30), ("* * * * *", 60), ("*/5 9-16 * * *", 57_900), ("0 3 * * *", 86_400), ("0 3 1 * *", 31 * 86_400)],
)
def test_the_interval_of_a_cron_expression_is_its_longest(every: float | str, longest: float) -> None:
    assert longest_interval(Settings(clean_backlog_every=every), "clean_backlog") == longest


HELD = """
import pathlib, time

taken = []

def keep(channel, messages):
    taken.append(channel)
    while len(taken) == 60 and not pathlib.Path("go").exists():
        time.sleep(0.01)
"""


def test_flower_shows_how_far_a_long_run_is_and_then_its_report(own: Server, lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "held.py").write_text(HELD)
    settings = {"CHAT_SHARDS": "1", "CHAT_ARCHIVE": "held:keep", "CHAT_BACKLOG": "1"}
    lab = Lab(lab.redis, shards=1, backlog=1)
    for number in range(100):
        lab.send_all(f"room {number}", 2)
    flower = Flower(own, tmp_path, **settings)
    consumer = worker(tmp_path, {"REDIS_URL": own.url} | settings).start()
    try:
        eventually(lambda: "ready." in consumer.output)
        called = run("-m", "celery", "-A", "tasks", "call", "tasks.clean_backlog", REDIS_URL=own.url, **settings)
        assert called.returncode == 0
        eventually(lambda: re.fullmatch(r"PROGRESS \d+ of 100 channels \(\d+%\)", flower.row()))
        (tmp_path / "go").touch()
        eventually(lambda: re.fullmatch(r"SUCCESS removed 100 messages in \d+\.\d+ s", flower.row()))
    finally:
        consumer.stop()
        flower.program.stop()
