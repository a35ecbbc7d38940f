"""The daemon as it is run: real worker and beat processes, a real broker, no eager mode."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from lab import Lab, bodies
from redis import Redis
from servers import ROOT, Program, Server, beat, eventually, every, run, worker

from tasks.settings import Settings

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("daemon")]


class Daemon:
    """A worker, and hands to call its tasks as an operator would."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.environment = {"REDIS_URL": server.url, "CHAT_PREFIX": "day", "CHAT_SHARDS": "4"}
        self.lab = Lab(Redis(port=server.port), prefix="day", shards=4)
        self.worker = worker(folder, self.environment)

    def celery(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return run("-m", "celery", "-A", "tasks", *arguments, folder=self.folder, **self.environment | environment)

    def call(self, task: str, **overrides: Any) -> dict[str, Any]:
        """Call a task by hand and return what Celery stored of its end."""
        called = self.celery("call", f"tasks.{task}", "--kwargs", json.dumps(overrides))
        task_id = called.stdout.strip()
        assert re.fullmatch(r"[0-9a-f-]{36}", task_id), called.stderr
        stored = eventually(lambda: self.result(task_id))
        return dict(stored)

    def result(self, task_id: str) -> dict[str, Any] | None:
        stored = json.loads(self.lab.redis.get(f"day:celery:celery-task-meta-{task_id}") or "{}")
        return stored if stored.get("status") in {"SUCCESS", "FAILURE"} else None


@pytest.fixture(scope="module")
def running(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(server, tmp_path_factory.mktemp("daemon"))
    daemon.lab.redis.flushdb()
    daemon.worker.start()
    eventually(lambda: "ready." in daemon.worker.output)
    yield daemon
    assert daemon.worker.stop() == 0
    daemon.lab.redis.close()


@pytest.fixture
def daemon(running: Daemon) -> Daemon:
    """The running daemon with no chat data."""
    for key in running.lab.redis.keys("day:{*"):
        running.lab.redis.delete(key)
    return running


def test_a_task_called_by_hand_cleans_and_reports(daemon: Daemon) -> None:
    daemon.lab.check("bob", "lobby")
    daemon.lab.send_all("lobby", 5)
    stored = daemon.call("clean_backlog", backlog=2)
    assert stored["status"] == "SUCCESS"
    report = stored["result"]
    assert (report["sweep"], report["messages"], report["due"], report["completed"]) == ("clean_backlog", 3, 0, True)
    check = daemon.lab.check("bob", "lobby")
    assert (check.missed, bodies(check)) == (3, ["m4", "m5"])
    assert "clean_backlog: removed 3 messages in" in daemon.worker.output
    eventually(
        lambda: re.search(r"succeeded in [0-9.e-]+s: removed 3 messages in", daemon.worker.output)
    )  # as in Flower


def test_all_three_tasks_clean_what_is_due(daemon: Daemon) -> None:
    daemon.lab.check("bob", "lobby")
    daemon.lab.send_all("lobby", 2)
    daemon.lab.idle("lobby", 901)
    daemon.lab.away("bob", "lobby", 301)
    assert daemon.call("clean_channels")["result"]["channels"] == 1
    assert daemon.call("clean_clients")["result"]["clients"] == 1
    assert daemon.call("clean_backlog")["result"]["messages"] == 0
    assert not daemon.lab.traces("lobby")


def test_a_dry_run_by_hand_removes_nothing(daemon: Daemon) -> None:
    daemon.lab.send_all("lobby", 5)
    report = daemon.call("clean_backlog", backlog=2, dry_run=True)["result"]
    assert (report["messages"], report["dry_run"]) == (3, True)
    assert daemon.lab.redis.llen(daemon.lab.key("lobby", "log:")) == 5


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"backlog": -1}, "backlog is -1, must be a whole number of at least 0"),
        ({"backlog": "many"}, "backlog is 'many'"),
        ({"message_timeout": -0.5}, "message_timeout is -0.5"),
        ({"bogus": 1}, "bogus: no argument of clean_backlog, must be keywords among backlog, dry_run"),
        ({"settings": {}}, "settings: no argument"),
        ({"shards": [99]}, "must be a list of numbers from 0 to 3"),
    ],
)
def test_a_bad_override_fails_at_once_and_removes_nothing(daemon: Daemon, overrides: Any, says: str) -> None:
    daemon.lab.send_all("lobby", 5)
    before = len(daemon.worker.output)
    stored = daemon.call("clean_backlog", **overrides)
    assert stored["status"] == "FAILURE"
    assert says in stored["result"]["exc_message"][0]
    eventually(lambda: "raised expected" in daemon.worker.output[before:])
    logged = daemon.worker.output[before:]
    assert "Traceback" not in logged
    assert "retry" not in logged.lower()
    assert daemon.lab.redis.llen(daemon.lab.key("lobby", "log:")) == 5


def test_the_result_of_a_bad_override_is_one_line(daemon: Daemon) -> None:
    failed = daemon.call("clean_backlog", backlog=-1)
    told = daemon.celery("result", failed["task_id"])
    says = "Error: backlog is -1, must be a whole number of at least 0 and at most 9007199254740991\n"
    assert (told.returncode, told.stdout, told.stderr) == (1, "", says)


def test_positional_arguments_are_refused_like_the_others(daemon: Daemon) -> None:
    task_id = daemon.celery("call", "tasks.clean_channels", "--args", "[0]").stdout.strip()
    stored = eventually(lambda: daemon.result(task_id))
    assert "0: no argument of clean_channels, must be keywords among" in stored["result"]["exc_message"][0]


def test_a_worker_with_another_number_of_shards_refuses_its_tasks(daemon: Daemon) -> None:
    daemon.lab.send_all("lobby", 1)
    daemon.lab.redis.set("day:shards", 8)
    stored = daemon.call("clean_channels", channel_timeout=0)
    daemon.lab.redis.set("day:shards", 4)
    assert "is stored in 8 shards, this process has 4" in stored["result"]["exc_message"][0]
    assert daemon.lab.redis.exists(daemon.lab.key("lobby", "log:"))


def test_celerys_keys_carry_our_prefix_and_results_lapse(daemon: Daemon) -> None:
    daemon.call("clean_channels")
    keys = [key.decode() for key in daemon.lab.redis.keys()]
    assert [key for key in keys if not key.startswith(("day:celery:", "day:{", "day:runs", "day:shards"))] == []
    results = [key for key in keys if "task-meta" in key]
    assert all(0 < daemon.lab.redis.ttl(key) <= 3600 for key in results)


def test_beat_runs_the_three_sweeps_and_workers_clean(daemon: Daemon) -> None:
    daemon.lab.check("bob", "lobby")
    daemon.lab.send_all("lobby", 200)
    daemon.lab.send("old", "x")
    daemon.lab.idle("old", 901)
    daemon.lab.away("bob", "lobby", 301)
    ticker = beat(daemon.folder, daemon.environment | every(0.5) | {"CHAT_CLEAN_PARTS": "2"}).start()
    try:
        eventually(lambda: not daemon.lab.traces("old"))
        eventually(lambda: daemon.lab.redis.llen(daemon.lab.key("lobby", "log:")) == 100)
        eventually(lambda: not daemon.lab.redis.exists(daemon.lab.key("lobby", "read:")))
    finally:
        assert ticker.stop() == 0
    assert not list(daemon.folder.glob("celerybeat*"))


def test_runs_that_waited_too_long_for_a_worker_are_dropped(server: Server, tmp_path: Path) -> None:
    environment = {"REDIS_URL": server.url, "CHAT_PREFIX": "late"}
    ticker = beat(tmp_path, environment | every(0.2)).start()
    with Redis(port=server.port) as redis:
        eventually(lambda: redis.llen("late:celery:pollchat") >= 12)
        ticker.stop()
        waiting = redis.llen("late:celery:pollchat")
        oldest = json.loads(redis.lindex("late:celery:pollchat", -1))["headers"]["expires"]
        eventually(lambda: redis.time()[0] > 1 + int(_epoch(oldest)))
        consumer = worker(tmp_path, environment).start()
        eventually(lambda: redis.llen("late:celery:pollchat") == 0)
        eventually(lambda: consumer.output.count("Discarding revoked task") >= waiting)
        consumer.stop()
    assert waiting >= 12
    assert "removed nothing" not in consumer.output


def _epoch(moment: str) -> float:
    from datetime import datetime  # noqa: PLC0415  one use

    return datetime.fromisoformat(moment).timestamp()


def test_a_bad_setting_stops_worker_and_beat_with_one_line(daemon: Daemon) -> None:
    for command in ("worker", "beat", "report"):
        result = daemon.celery(command, CHAT_BACKLOG="lots")
        assert result.returncode != 0
        assert "CHAT_BACKLOG is 'lots', must be a whole number from 1 to" in result.stderr
        assert "Traceback" not in result.stderr


def test_a_stray_broker_url_in_the_environment_does_not_win(daemon: Daemon) -> None:
    called = daemon.celery("call", "tasks.clean_clients", CELERY_BROKER_URL="redis://127.0.0.1:1/0")
    assert eventually(lambda: daemon.result(called.stdout.strip()))["status"] == "SUCCESS"


def test_only_json_is_accepted(daemon: Daemon) -> None:
    report = daemon.celery("report").stdout
    assert re.search(r"accept_content: \['json'\]", report)


def test_importing_the_app_touches_no_redis() -> None:
    code = "import tasks, tasks.periodic, celeryconfig; print(tasks.app.main)"
    result = run("-c", code, REDIS_URL="redis://127.0.0.1:1/0")
    assert result.stdout.strip() == "tasks"


@pytest.mark.parametrize("url", ["rediss://127.0.0.1:1/0", "unix:///nowhere.sock?db=2", "redis://:pw@127.0.0.1:1/3"])
def test_celery_takes_every_kind_of_url_the_settings_do(url: str) -> None:
    code = "import tasks; tasks.app.backend.client; print(tasks.app.connection().as_uri())"
    result = run("-c", code, REDIS_URL=url)
    assert result.returncode == 0, result.stderr


def test_another_teams_app_takes_the_tasks_and_the_schedule_in(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(
        "from celery import Celery\n"
        "from tasks.settings import Settings\n"
        "import tasks\n"
        f"app = Celery('theirs', broker={daemon.server.url!r}, backend={daemon.server.url!r},"
        " include=['tasks.periodic'])\n"
        "app.conf.beat_schedule = dict(tasks.beat_schedule(Settings.from_env()))\n"
    )
    daemon.lab.send("old", "x")
    daemon.lab.idle("old", 901)
    arguments = ["-m", "celery", "-A", "theirs", "worker", "-B", "-c", "1", "-s", str(tmp_path / "schedule")]
    theirs = Program("theirs", arguments, daemon.environment | every(0.5), tmp_path).start()
    eventually(lambda: not daemon.lab.traces("old"))
    theirs.stop()


def test_the_settings_of_this_machine_steer_no_test() -> None:
    assert not [name for name in os.environ if name.startswith("CHAT_")]
    assert Settings.from_env({}) == Settings()
    assert (ROOT / "celeryconfig.py").exists()
