"""Is a worker or beat alive? A heartbeat file, touched while its main loop turns, and the command that reads it.

The file goes on being touched while the broker is away: a probe that asks over the broker would restart every
healthy process during an outage of Redis.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from celery import bootsteps
from celery.beat import beat_nodename
from celery.signals import beat_init, celeryd_init
from celery.utils.log import get_logger
from celery.utils.nodenames import default_nodename, host_format
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from chat import SettingsError
from tasks.commands.screen import age
from tasks.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Heartbeat", "health", "touch"]

EVERY = 10  # seconds between two heartbeats
STALE = 60  # seconds without one: longer than any pause of a healthy loop, a half-open socket's 30 s included
ANSWER = 5  # seconds to answer a ping
ALIVE, DEAD, BAD_INPUT = 0, 1, 2

log = get_logger(__name__)

_file: tuple[int, Path] | None = None  # whose heartbeat it is, and where; set in worker and beat only


def heartbeat_file(node: str) -> Path:
    """Return the file of a node, such as ``celery@host`` or ``celerybeat@host``."""
    return Path(Settings.from_env().heartbeat_dir, f"{node.replace(os.sep, '_')}.heartbeat")


def begin(sender: str, **_: Any) -> None:
    """Show from now on that this process, the node `sender`, lives."""
    global _file  # noqa: PLW0603  one process is one node
    _file = os.getpid(), heartbeat_file(sender)
    touch()


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


def begin_beat(sender: Any, **_: Any) -> None:
    """Show from now on that beat lives."""
    begin(beat_nodename(sender.hostname))


@click.command(epilog="Exit codes: 0 alive, 1 not, 2 bad input.")
@click.argument("what", type=click.Choice(["worker", "beat"]))
@click.option("-n", "--hostname", help="Its name, as it was given to worker or beat.")
@click.option("--ping", is_flag=True, help="Ask it over the broker, too: for readiness, never for liveness.")
@click.pass_context
def health(context: click.Context, what: str, hostname: str | None, *, ping: bool) -> None:
    """Tell whether the worker or beat of this host lives, by the file that it touches every few seconds.

    \b
    celery -A tasks health worker
    celery -A tasks health worker -n w2@%h --ping
    """  # noqa: D301  \b is click's
    node = beat_nodename(hostname) if what == "beat" else host_format(default_nodename(hostname))
    try:
        path = heartbeat_file(node)
        trouble = last_beat(path) or (ping and unanswered(context.obj.app, node))
    except SettingsError as error:
        click.echo(f"health: {error}", err=True)
        sys.exit(BAD_INPUT)
    if trouble:
        click.echo(f"health: {node} {trouble}", err=True)
        sys.exit(DEAD)
    click.echo(f"{node} is alive")


def last_beat(path: Path) -> str:
    """Return what is wrong with a heartbeat, '' for nothing."""
    try:
        seconds = abs(time.time() - path.stat().st_mtime)  # a clock may have been set back
    except OSError as error:
        return f"shows no heartbeat ({error}): does it run here, under this name, with this CHAT_HEARTBEAT_DIR?"
    return f"was last seen {age(seconds)} ago: restart it" if seconds > STALE else ""


def unanswered(app: Celery, node: str) -> str:
    """Return what is wrong with a node's answer over the broker, '' for nothing."""
    try:
        answers = app.control.ping(destination=[node], timeout=ANSWER, limit=1)
    except (OperationalError, RedisError) as error:
        return f"lives, but the broker does not: {error}"
    return "" if answers else f"lives, but did not answer over the broker within {ANSWER} s"


celeryd_init.connect(begin)
beat_init.connect(begin_beat)
