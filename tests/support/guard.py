"""End the processes of a test run that was killed: a guard outlives it and kills those it was told of."""

from __future__ import annotations

import atexit
import functools
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forks import Forked

PROGRAM = """
import os, signal, sys

def born(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[19]
    except OSError:
        return None

running = {}
for line in sys.stdin:
    pid = int(line)
    if pid > 0:
        running[pid] = born(pid)
    else:
        running.pop(-pid, None)
for pid, moment in running.items():
    if born(pid) == moment:  # no other process that has got its number
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
"""


def watch(process: subprocess.Popen[bytes] | Forked) -> None:
    """Kill the process, which leads a session of its own, and its children when this process ends."""
    _tell(process.pid)


def forget(process: subprocess.Popen[bytes] | Forked) -> None:
    """Take a process that has ended off the list."""
    _tell(-process.pid)


def _tell(number: int) -> None:
    guard = _guard()
    assert guard.stdin
    guard.stdin.write(b"%d\n" % number)


@functools.cache
def _guard() -> subprocess.Popen[bytes]:
    guard = subprocess.Popen(
        [sys.executable, "-ISc", PROGRAM],
        bufsize=0,
        stdin=subprocess.PIPE,  # its end is the end of this process
        start_new_session=True,
    )
    atexit.register(guard.communicate)
    return guard
