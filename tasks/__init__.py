"""The daemon: a Celery app with three periodic tasks that keep the chat clean.

``celery -A tasks worker``, ``celery -A tasks beat``, ``celery -A tasks call tasks.clean_backlog``.
Its settings are in ``celeryconfig``, loaded when first needed; importing this touches no Redis.
"""

from celery import Celery

from tasks.schedule import beat_schedule

__all__ = ["app", "beat_schedule"]

# Not the current app: a team that adds the tasks to its own app imports this package too.
app = Celery(
    "tasks",
    config_source="celeryconfig",
    include=["tasks.periodic", "tasks.health", "tasks.robust.logs", "tasks.metrics", "tasks.robust.checks"],
    amqp="tasks.robust.broker:AMQP",
    set_as_current=False,
)
app.steps["consumer"].add("tasks.health:Heartbeat")
