"""Processes of the product at a fifth of the price: each is forked from one that has imported what they all import.

Starting `python -m celery` takes half a second of CPU, nearly all of it for modules that are not ours, and the tests
start it a thousand times. A process of each test run imports those modules once, and none of ours; what it forks is a
process like any other: a session, environment, folder, output, exit code and signals of its own.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal

PROGRAM = Path(__file__).with_name("forker.py")


@dataclass
class Forked:
    """A process that was forked: what the tests use of `subprocess.Popen`."""

    pid: int
    returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or nothing while the process runs."""
        if self.returncode is None:
            self.returncode = _forker().code_of(self.pid, 0)
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        """Wait for the end, and return the exit code."""
        if self.returncode is None:
            self.returncode = _forker().code_of(self.pid, timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return self.returncode

    def send_signal(self, how: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, how)


def fork_on(terminal: int, arguments: list[str], environment: dict[str, str]) -> Forked:
    """Fork ``python -m ARGUMENTS`` on a terminal, which becomes its own."""
    path = os.ttyname(terminal)
    files = [(path, os.O_RDONLY), (path, os.O_WRONLY), (path, os.O_WRONLY)]
    return _fork({"arguments": arguments, "environment": environment, "folder": str(Path.cwd()), "files": files})


def fork(arguments: list[str], environment: dict[str, str], folder: Path, output: Path, errors: Path) -> Forked:
    """Fork ``python -m ARGUMENTS``; its output is appended to files, which may be one."""
    for file in (output, errors):
        file.touch()
    written = os.O_WRONLY | os.O_APPEND
    files = [("/dev/null", os.O_RDONLY), (str(output), written), (str(errors), written)]
    return _fork({"arguments": arguments, "environment": environment, "folder": str(folder), "files": files})


def _fork(order: dict[str, object]) -> Forked:
    return Forked(_forker().fork(order))


class Forker:
    """The process that forks, and what it told."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        atexit.register(self.process.communicate)  # the end of its input is its end
        self.lock = threading.Lock()
        self.told = b""
        self.forked: list[int] = []
        self.codes: dict[int, int] = {}

    def fork(self, order: dict[str, object]) -> int:
        with self.lock:
            assert self.process.stdin
            self.process.stdin.write(json.dumps(order).encode() + b"\n")
            while not self.forked:
                self.listen(60)
            return self.forked.pop()

    def code_of(self, pid: int, timeout: float) -> int | None:
        deadline = time.monotonic() + timeout
        with self.lock:
            while pid not in self.codes:
                left = deadline - time.monotonic()
                if not self.listen(max(0, min(left, 0.1))) and left <= 0:
                    return None
            return self.codes.pop(pid)

    def listen(self, seconds: float) -> bool:
        """Take in what the process says; return whether it said something."""
        assert self.process.stdout
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return False
        received = self.process.stdout.read(1 << 16)
        assert received, "the process that forks has ended"
        *lines, self.told = (self.told + received).split(b"\n")
        for line in lines:
            what, pid, *code = json.loads(line)
            if what == "forked":
                self.forked.append(pid)
            else:
                self.codes[pid] = code[0]
        return True


@functools.cache
def _forker() -> Forker:
    return Forker()
