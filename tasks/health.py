"""The heartbeat of worker and beat: a file that their main loop touches, for ``celery -A tasks health``.

The file is touched while the broker is away, too: a probe that asks through the broker would restart every healthy
process during an outage of Redis.
"""

from __future__ import annotations

import atexit
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from celery import bootsteps
from celery.beat import beat_nodename
from celery.signals import beat_init, celeryd_init
from celery.utils.log import get_logger

from tasks.settings import Settings

__all__ = ["Heartbeat", "heartbeat_file", "touch"]

EVERY = 10  # seconds between two heartbeats

log = get_logger(__name__)

_file: tuple[int, Path] | None = None  # whose heartbeat it is, and where; set in worker and beat only


def heartbeat_file(node: str) -> Path:
    """Return the file of a node, such as ``celery@host`` or ``celerybeat@host``."""
    return Path(Settings.from_env().heartbeat_dir, f"{node.replace(os.sep, '_')}.heartbeat")


def _begin(sender: str, **_: Any) -> None:
    """Show from now on that this process, the node `sender`, lives."""
    global _file  # noqa: PLW0603  one process is one node
    _file = os.getpid(), heartbeat_file(sender)
    atexit.register(_end)
    touch()


def _end() -> None:
    """Remove the file, so that the process is not taken for alive once it has ended."""
    if _file and _file[0] == os.getpid():
        with suppress(OSError):
            _file[1].unlink(missing_ok=True)


def touch() -> None:
    """Show that the main loop turns. From other threads and from a worker's children it means nothing."""
    if not _file or _file[0] != os.getpid() or threading.current_thread() is not threading.main_thread():
        return
    try:
        _file[1].parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _file[1].touch()
    except OSError as error:
        log.warning("no heartbeat, health checks will fail: %s; see CHAT_HEARTBEAT_DIR", error)


class Heartbeat(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """A worker's timer that touches the file. Between two connections its `ensure_connection` does it."""

    timer: Any = None

    def start(self, consumer: Any) -> None:
        """Begin with each new connection."""
        touch()
        self.timer = consumer.timer.call_repeatedly(EVERY, touch)

    def stop(self, consumer: Any) -> None:
        """End with the connection."""
        self.timer = self.timer and consumer.timer.cancel(self.timer)

    shutdown = stop


def _begin_beat(sender: Any, **_: Any) -> None:
    """Show from now on that beat lives."""
    _begin(beat_nodename(sender.hostname))


celeryd_init.connect(_begin)
beat_init.connect(_begin_beat)
