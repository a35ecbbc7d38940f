"""Celery's settings, each with its reason. Data only: rules are in `chat`, the schedule's shape in `tasks`.

Measured on Celery 5.7 and redis-py 8 with redis-server 7.0: see the reasons before changing one.
"""

from chat import SettingsError
from tasks.schedule import beat_schedule as schedule
from tasks.schedule import celery_url, part_from_ssl_password, transport_options
from tasks.settings import QUEUE, Settings

try:
    settings = Settings.from_env()
    beat_schedule = schedule(settings)
    # Where. Read and write URLs are said too: a stray CELERY_BROKER_URL in the environment would win over broker_url.
    broker_url = broker_read_url = broker_write_url = celery_url(settings.broker_url)
    result_backend, redis_backend_use_ssl = part_from_ssl_password(celery_url(settings.result_url))
except SettingsError as error:
    message = f"pollchat: {error}"
    raise SystemExit(message) from None

# A queue and key names of our own: another Celery app in the same database neither takes our tasks nor loses its own.
task_default_queue = QUEUE
_key_prefix = settings.celery_prefix

broker_transport_options = {
    "global_keyprefix": _key_prefix,
    "visibility_timeout": 120,  # a killed worker's task comes back after this; above the hard time limit
    "unacked_restore_throttle": 1,  # look for such tasks every 10 s, not every 100 s
    "socket_timeout": 10,  # else a publish on a half-open socket hangs for ever, and beat with it
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 4,  # a half-open socket is noticed sooner: by worker and beat within about 30 s, measured
    **transport_options(settings.broker_url),
}
result_backend_transport_options = {
    "global_keyprefix": _key_prefix,
    "retry_policy": {"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 1},
    **transport_options(settings.result_url),
}
redis_socket_timeout = 10
redis_socket_connect_timeout = 5
redis_socket_keepalive = True

# Redis goes away and comes back: wait for it, however long; when it refuses (full), retry instead of dying.
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
broker_channel_error_retry = True
worker_cancel_long_running_tasks_on_connection_loss = False  # True lost runs; a sweep may safely run twice

# Workers die: a task is acknowledged when done, and comes back when its process was killed.
task_acks_late = True
task_reject_on_worker_lost = True
worker_prefetch_multiplier = 1  # with early acks or more prefetch a worker exits when Redis dies

# Tasks are small: they end by their own time budget, then by the soft, then by the hard limit.
task_soft_time_limit = 60
task_time_limit = 75
worker_concurrency = 2  # a sweep keeps one Redis busy; each process costs 50 MB
worker_max_tasks_per_child = 1000  # a leak anywhere below us stays small

# Only JSON comes in and goes out.
task_serializer = result_serializer = event_serializer = "json"
accept_content = result_accept_content = ["json"]

# Results of runs by hand: an hour is enough to look at them; beat's own store none (see tasks/schedule.py).
result_expires = 3600
result_extended = True  # Flower and `celery result` show name and arguments

# What Flower shows.
worker_send_task_events = True
task_send_sent_event = True
task_track_started = True

# Beat keeps no file, so there is nothing to corrupt and no folder to be writable. Ours is Celery's in-memory scheduler
# that finds in Redis when each run was last scheduled, and cleans in its own process when Redis is too full for a task.
beat_scheduler = f"{__name__.replace('celeryconfig', 'tasks')}.robust.scheduler:Scheduler"
beat_max_loop_interval = 5  # seconds; the default of 300 answers a stopped clock or a signal late
beat_enable_remote_control = True  # beat answers a ping: `celery -A tasks health beat --ping`
timezone = "UTC"  # of cron expressions
enable_utc = True

# One line an event, readable in a journal.
worker_log_format = beat_log_format = "%(asctime)s %(levelname)s %(message)s"
worker_task_log_format = "%(asctime)s %(levelname)s %(task_name)s[%(task_id).8s] %(message)s"
worker_redirect_stdouts = False
