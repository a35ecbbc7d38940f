"""./deploy/up as a newcomer runs it, in a copy of the project, without the installation step."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis import Redis
from servers import ROOT, clean_environment, eventually, free_port

from chat import Chat

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow


class Up:
    def __init__(self, folder: Path) -> None:
        for name in ("chat", "tasks", "deploy"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "celeryconfig.py", folder)
        self.folder = folder
        self.port, self.flower = free_port(), free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> str:
        return (self.folder / "up.log").read_text()

    def start(self, *options: str, **environment: str) -> None:
        ours = {"REDIS_URL": self.url, "FLOWER_PORT": str(self.flower), "PYTHONPATH": str(self.folder)}
        with (self.folder / "up.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "deploy/supervise.py", *options],
                cwd=self.folder,
                env=clean_environment() | ours | environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self, how: signal.Signals, *, as_terminal: bool) -> int:
        """Signal it alone, or its whole process group as a terminal's Ctrl-C does."""
        assert self.process
        (os.killpg if as_terminal else os.kill)(self.process.pid, how)
        return self.process.wait(60)

    def left(self) -> list[str]:
        """Return the command lines of processes that still run in the folder."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "cwd").readlink().is_relative_to(self.folder):
                    found.append((process / "cmdline").read_text())
            except OSError:
                continue
        return found


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    up = Up(tmp_path)
    yield up
    if up.process and up.process.poll() is None:
        up.stop(signal.SIGTERM, as_terminal=False)


def test_it_starts_everything_says_where_stops_it_all_and_keeps_the_data(up: Up) -> None:
    up.start()
    eventually(lambda: "ready." in up.output and "beat: Starting" in up.output and "Visit me at" in up.output, 60)
    for said in (up.url, "embedded Valkey", f"http://127.0.0.1:{up.flower}", "chat send lobby", "Ctrl-C"):
        assert said in up.output
    sent = Chat.from_url(up.url).send_message("lobby", "hi")
    with urllib.request.urlopen(f"http://127.0.0.1:{up.flower}/healthcheck", timeout=10) as answer:
        assert answer.status == 200
    with Redis(port=up.port) as redis:
        assert redis.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        assert redis.config_get("appendonly")["appendonly"] == "yes"
    assert up.stop(signal.SIGINT, as_terminal=True) == 130
    eventually(lambda: not up.left())
    assert "Traceback" not in up.output

    up.start()
    eventually(lambda: "ready." in up.output, 60)
    assert list(Chat.from_url(up.url).check_messages("bob", "lobby", history=5)) == [sent]
    assert up.stop(signal.SIGTERM, as_terminal=False) == 143
    eventually(lambda: not up.left())


def test_flower_shows_a_run_by_hand_with_its_report(up: Up) -> None:
    up.start(FLOWER_UNAUTHENTICATED_API="true")
    eventually(lambda: "ready." in up.output and "Connected to" in up.output, 60)
    chat = Chat.from_url(up.url)
    for number in range(3):
        chat.send_message("lobby", number)
    command = ["-m", "celery", "-A", "tasks", "call", "tasks.clean_backlog", "--kwargs", '{"backlog": 1}']
    environment = clean_environment() | {"REDIS_URL": up.url}
    called = subprocess.run(
        [sys.executable, *command], cwd=up.folder, env=environment, capture_output=True, text=True, check=True
    )
    task_id = called.stdout.strip()

    def shown() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{up.flower}/api/tasks", timeout=10) as answer:
            return str(json.load(answer).get(task_id, {}).get("result") or "")

    assert eventually(shown).startswith("removed 2 messages in")
    up.stop(signal.SIGTERM, as_terminal=False)
    eventually(lambda: not up.left())


@pytest.mark.parametrize(
    "url", ["redis://elsewhere.invalid:6379/0", "unix:///nowhere.sock", "redis://:pw@127.0.0.1:1/0"]
)
def test_a_redis_it_cannot_start_is_one_line(up: Up, url: str) -> None:
    up.start(REDIS_URL=url)
    assert up.process
    assert up.process.wait(60) == 1
    assert up.output.startswith("./deploy/up: nothing answers at REDIS_URL")
    assert len(up.output.splitlines()) == 1
    assert "pw" not in up.output


def test_with_the_example_it_starts_a_room_too(up: Up) -> None:
    port = free_port()
    up.start("--example", EXAMPLE_PORT=str(port))
    room = f"http://127.0.0.1:{port}"
    eventually(lambda: f"room    {room}, a chat room: open it twice" in up.output, 60)
    assert b"<title>" in eventually(lambda: page(room))
    up.stop(signal.SIGTERM, as_terminal=False)
    eventually(lambda: not up.left())


def page(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url) as answer:  # noqa: S310  ours
            return bytes(answer.read())
    except urllib.error.URLError:
        return b""


def test_an_option_that_is_none_is_one_line() -> None:
    done = subprocess.run(["./deploy/up", "--exmaple"], cwd=ROOT, capture_output=True, text=True, check=False)
    said = "./deploy/up: --exmaple is no option, must be --example or nothing\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_a_taken_port_for_flower_is_one_line(up: Up) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", up.flower))
        taken.listen()
        up.start()
        assert up.process
        assert up.process.wait(60) == 1
    assert up.output.startswith(f"./deploy/up: port {up.flower} for Flower is taken")
    assert not up.left()
