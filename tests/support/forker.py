"""A program that forks: each process it is ordered to start has imported already what is not ours.

It reads orders from its input, a JSON line each, and writes ["forked", pid] and ["ended", pid, exit code].
"""

import gc
import importlib
import json
import os
import runpy
import select
import signal
import sys
from typing import Any

# Not celery.bin.celery, which loads the commands of all that is installed: ours too.
COMMANDS = ("amqp", "beat", "call", "control", "events", "graph", "list", "purge", "result", "worker")
MODULES = (
    *(f"celery.bin.{command}" for command in COMMANDS),
    "celery.apps.beat",
    "celery.apps.worker",
    "celery.backends.redis",
    "celery.beat",
    "celery.concurrency.prefork",
    "celery.fixups.django",
    "celery.loaders.app",
    "click_didyoumean",
    "click_plugins",
    "dotenv",
    "kombu.transport.redis",
    "redis.asyncio.cluster",
    "redis.asyncio.sentinel",
    "rich.live",
    "rich.progress",
    "rich.table",
)


def serve(woken: int) -> dict[str, Any]:
    """Fork what is ordered, and tell how each ended; return the order in the process that was ordered."""
    pending = b""
    while True:
        ready = select.select([0, woken], [], [])[0]
        if woken in ready:
            os.read(woken, 4096)
            tell_ended()
        if 0 in ready:
            received = os.read(0, 1 << 16)
            if not received:
                sys.exit()
            *lines, pending = (pending + received).split(b"\n")
            for line in lines:
                pid = os.fork()
                if not pid:
                    return dict(json.loads(line))
                tell("forked", pid)


def tell_ended() -> None:
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            tell("ended", ended[0], os.waitstatus_to_exitcode(ended[1]))
    except ChildProcessError:
        return


def tell(*what: str | int) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def become(order: dict[str, Any], path: list[str]) -> None:
    """Be the process that was ordered."""
    os.setsid()
    for number, (file, flags) in enumerate(order["files"]):
        opened = os.open(file, flags)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    given = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[:] = [order["folder"], *given, *path]
    sys.argv[:] = order["arguments"]


if __name__ == "__main__":
    for name in MODULES:
        importlib.import_module(name)
    gc.freeze()  # else each process goes through all of them at its end
    woken, wake = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    ordered = serve(woken)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(wake)
    os.close(woken)
    become(ordered, [folder for folder in sys.path if folder])
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
