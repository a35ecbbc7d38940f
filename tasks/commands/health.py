"""``celery -A tasks health``: is the worker or beat of this host alive?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from celery.beat import beat_nodename
from celery.utils.nodenames import default_nodename, host_format
from click import ClickException
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from chat import InvalidArgumentError
from chat.screen import age
from tasks import app as own_app
from tasks.commands.console import celery_command, running
from tasks.health import heartbeat_file

if TYPE_CHECKING:
    from pathlib import Path

    from celery import Celery

__all__ = ["health"]

STALE = 60  # seconds without a heartbeat: longer than any pause of a healthy loop, a half-open socket's 30 s included
PING_TIMEOUT = 5  # seconds


def health(app: Celery, *, what: str, hostname: str | None, ping: bool) -> None:
    """Say that a node is alive, or exit with 1 and say what is wrong with it."""
    node = beat_nodename(hostname) if what == "beat" else host_format(default_nodename(hostname))
    with running("health"):
        if app is not own_app:
            message = f"only celery -A tasks writes heartbeats, for this app use {celery_command()} inspect ping"
            raise InvalidArgumentError(message)
        if problem := _late(heartbeat_file(node)) or (ping and _unanswered(app, node)):
            raise ClickException(f"{node} {problem}")  # noqa: TRY003, EM102
        print(f"{node} is alive")


def _late(path: Path) -> str:
    """Return what is wrong with a heartbeat, '' for nothing."""
    try:
        seconds = abs(time.time() - path.stat().st_mtime)  # a clock may have been set back
    except OSError as error:
        return f"shows no heartbeat ({error}): does it run here, under this name, with this CHAT_HEARTBEAT_DIR?"
    return f"was last seen {age(seconds)} ago: restart it" if seconds > STALE else ""


def _unanswered(app: Celery, node: str) -> str:
    """Return what is wrong with a node's answer over the broker, '' for nothing."""
    try:
        answers = app.control.ping(destination=[node], timeout=PING_TIMEOUT, limit=1)
    except (OperationalError, RedisError) as error:
        return f"lives, but the broker does not: {error}"
    return "" if answers else f"lives, but did not answer over the broker within {PING_TIMEOUT} s"
