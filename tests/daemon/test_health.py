"""The heartbeat of worker and beat, and the command that reads it."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from servers import Program, Server, beat, eventually, every, run, worker

from tasks import health as health_module
from tasks.robust import broker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

Health = tuple[int, str, str]
LONG_AGO = 1_000_000_000


class Heart:
    """A worker or beat, its heartbeat file, and the command that reads it."""

    def __init__(self, what: str, server: Server, folder: Path, start: Callable[..., Program]) -> None:
        self.what, self.server, self.folder = what, server, folder
        self.environment = {"REDIS_URL": server.url, "CHAT_HEARTBEAT_DIR": str(folder / "hearts")} | every(1)
        self.program = start(folder, self.environment).start()
        eventually(lambda: "ready." in self.program.output or "beat: Starting" in self.program.output)

    @property
    def node(self) -> str:
        return f"{'celerybeat' if self.what == 'beat' else 'worker'}@{os.uname().nodename}"

    @property
    def file(self) -> Path:
        return self.folder / "hearts" / f"{self.node}.heartbeat"

    def health(self, *options: str, **environment: str) -> Health:
        arguments = ["-m", "celery", "-A", "tasks", "health", self.what, *options]
        if self.what == "worker":
            arguments += ["-n", "worker@%h"]
        result = run(*arguments, folder=self.folder, **self.environment | environment)
        return result.returncode, result.stdout, result.stderr

    def beats(self) -> None:
        """Wait for the next heartbeat."""
        eventually(self.file.exists)
        os.utime(self.file, (LONG_AGO, LONG_AGO))
        eventually(lambda: self.file.stat().st_mtime > LONG_AGO, 90)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    server = Server("valkey", tmp_path).start()
    yield server
    server.stop()


@pytest.fixture(params=["worker", "beat"])
def heart(request: pytest.FixtureRequest, own: Server, tmp_path: Path) -> Iterator[Heart]:
    heart = Heart(request.param, own, tmp_path, {"worker": worker, "beat": beat}[request.param])
    yield heart
    heart.program.stop(signal.SIGKILL)


def test_a_healthy_process_is_alive_and_answers_over_the_broker(heart: Heart) -> None:
    heart.beats()
    assert heart.health() == (0, f"{heart.node} is alive\n", "")
    assert heart.health("--ping") == (0, f"{heart.node} is alive\n", "")


def test_a_process_that_has_ended_is_not_alive(heart: Heart) -> None:
    heart.beats()
    assert heart.program.stop() == 0
    code, _, err = heart.health()
    assert (code, "shows no heartbeat" in err) == (1, True)


def test_it_stays_alive_while_redis_is_away_and_when_it_is_back(heart: Heart) -> None:
    heart.beats()
    heart.server.stop(signal.SIGKILL)
    heart.beats()
    heart.beats()
    assert heart.health()[0] == 0
    code, out, err = heart.health("--ping")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert err.startswith(f"health: {heart.node} lives, but the broker does not")
    heart.server.start()
    heart.beats()


def test_a_publish_whose_connection_is_lost_touches_the_file_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[bool] = []
    monkeypatch.setattr(broker, "touch", lambda: beats.append(True))
    connection = broker.Connection("redis://127.0.0.1:1/0")
    with pytest.raises(RedisConnectionError):  # as kombu's `ensure` calls it
        connection._ensure_connection(None, 1, 0.1, 0, 0.1, reraise_as_library_errors=False)
    assert beats


def test_a_process_that_hangs_is_dead(heart: Heart) -> None:
    heart.beats()
    assert heart.program.process
    heart.program.process.send_signal(signal.SIGSTOP)
    os.utime(heart.file, (time.time() - 61,) * 2)
    code, out, err = heart.health()
    assert (code, out) == (1, "")
    assert re.fullmatch(f"health: {heart.node} was last seen \\d+ s ago: restart it\n", err)
    heart.program.process.send_signal(signal.SIGCONT)


def test_a_heartbeat_of_the_future_is_none(heart: Heart) -> None:
    heart.beats()
    assert heart.program.process
    heart.program.process.send_signal(signal.SIGSTOP)
    os.utime(heart.file, (time.time() + 3600,) * 2)
    assert heart.health()[0] == 1
    heart.program.process.send_signal(signal.SIGCONT)


def test_another_name_or_folder_is_told_from_a_dead_process(heart: Heart) -> None:
    code, out, err = heart.health(CHAT_HEARTBEAT_DIR=str(heart.folder / "elsewhere"))
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "shows no heartbeat" in err
    assert "does it run here, under this name, with this CHAT_HEARTBEAT_DIR?" in err


def test_a_worker_that_has_never_met_its_broker_lives(tmp_path: Path) -> None:
    environment = {"REDIS_URL": "redis://127.0.0.1:1/0", "CHAT_HEARTBEAT_DIR": str(tmp_path)}
    waiting = worker(tmp_path, environment).start()
    file = tmp_path / f"worker@{os.uname().nodename}.heartbeat"
    eventually(file.exists)
    os.utime(file, (LONG_AGO, LONG_AGO))
    eventually(lambda: file.stat().st_mtime > LONG_AGO)
    waiting.stop()


def test_a_folder_that_cannot_be_written_is_said_and_stops_nobody(own: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = {"REDIS_URL": own.url, "CHAT_HEARTBEAT_DIR": str(tmp_path / "file" / "hearts")}
    consumer = worker(tmp_path, environment).start()
    eventually(lambda: "ready." in consumer.output)
    eventually(lambda: "no heartbeat, health checks will fail" in consumer.output)
    assert consumer.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["health", "flower"], "'flower' is not one of 'worker', 'beat'"),
        (["health"], "Missing argument"),
    ],
)
def test_bad_input_is_exit_code_2(arguments: list[str], says: str) -> None:
    result = run("-m", "celery", "-A", "tasks", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert says in result.stderr


def test_another_app_has_no_heartbeat(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("from celery import Celery\napp = Celery('shop')\n")
    result = run("-m", "celery", "-A", "shop", "health", "worker", folder=tmp_path)
    says = "only celery -A tasks writes heartbeats, for this app use celery -A shop inspect ping"
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"health: {says}\n")


def test_only_the_main_thread_of_the_process_itself_shows_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "heartbeat"

    def touched(pid: int, thread: Callable[[Callable[[], Any]], Any]) -> bool:
        file.unlink(missing_ok=True)
        monkeypatch.setattr(health_module, "_file", (pid, file))
        thread(health_module.touch)
        return file.exists()

    def elsewhere(work: Callable[[], Any]) -> None:
        other = threading.Thread(target=work)
        other.start()
        other.join()

    assert touched(os.getpid(), lambda work: work())
    assert not touched(os.getpid(), elsewhere)
    assert not touched(os.getpid() + 1, lambda work: work())
