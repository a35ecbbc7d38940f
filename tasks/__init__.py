"""The daemon: a Celery app with three periodic tasks that keep the chat clean.

``celery -A tasks worker``, ``celery -A tasks beat``, ``celery -A tasks call tasks.clean_backlog``.
Its settings are in ``celeryconfig``, loaded when first needed; importing this package connects to nothing.
"""

import sys
from pathlib import Path
from typing import Any

from celery import Celery

from tasks.schedule import beat_schedule

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
app.steps["consumer"].add(f"{__name__}.health:Heartbeat")


def refuse_foreign_config(**_: Any) -> None:
    """End with one line when another ``celeryconfig`` was found first: with it nothing would be cleaned."""
    ours = Path(__file__).parent.with_name("celeryconfig.py")
    found = Path(getattr(sys.modules.get(CONFIG), "__file__", None) or ours)
    if found.parent.resolve() != ours.parent.resolve():
        message = f"pollchat: {CONFIG} is {found}, must be {ours}: start Celery in that folder, or install the wheel"
        raise SystemExit(message)


app.on_after_configure.connect(refuse_foreign_config)
