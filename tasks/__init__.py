"""The daemon: a Celery app with three periodic tasks that keep the chat clean.

``celery -A tasks worker``, ``celery -A tasks beat``, ``celery -A tasks call tasks.clean_backlog``.
Its settings are in ``celeryconfig``, loaded when first needed; importing this package connects to nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import Celery

if TYPE_CHECKING:
    from tasks.settings import Settings

__all__ = ["app", "beat_schedule"]

# All names are derived: from the wheel this is pollchat.tasks, and its neighbour pollchat.celeryconfig.
CONFIG = __name__.replace("tasks", "celeryconfig")
MODULES = ("periodic", "health", "robust.logs", "metrics", "robust.checks")

# Not the current app: a team that adds the tasks to its own app imports this package too.
app = Celery(
    __name__,
    config_source=CONFIG,
    include=[f"{__name__}.{module}" for module in MODULES],
    amqp=f"{__name__}.robust.broker:AMQP",
    set_as_current=False,
)


def beat_schedule(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the entries of the beat schedule for the three sweeps. See `tasks.schedule.beat_schedule`."""
    from tasks.schedule import beat_schedule as entries  # noqa: PLC0415  every `celery` on the machine loads this package

    return entries(settings)


app.steps["consumer"].add(f"{__name__}.health:Heartbeat")


def _refuse_foreign_config(**_: Any) -> None:
    """End with one line when another ``celeryconfig`` was found first: with it nothing would be cleaned."""
    ours = Path(__file__).parent.with_name("celeryconfig.py")
    found = Path(getattr(sys.modules.get(CONFIG), "__file__", None) or ours)
    if found.parent.resolve() != ours.parent.resolve():
        message = f"pollchat: {CONFIG} is {found}, must be {ours}: start Celery in that folder, or install the wheel"
        raise SystemExit(message)


def _load_tasks(**_: Any) -> None:
    """Load the tasks with the configuration, so that ``celery result`` knows the class of their errors."""
    import_module(f"{__name__}.periodic")


for begin in (_refuse_foreign_config, _load_tasks):
    app.on_after_configure.connect(begin)
