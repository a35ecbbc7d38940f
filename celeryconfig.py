"""Celery's settings, each with its reason: data only, computed values come from ``tasks.schedule``.

Measured on Celery 5.7 and redis-py 8 with redis-server 7.0: read the reason before you change one.
"""

from chat import SettingsError
from tasks.schedule import beat_schedule as schedule
from tasks.schedule import celery_url, tls_options, transport_options
from tasks.settings import QUEUE, Settings

try:
    settings = Settings.from_env()
    beat_schedule = schedule(settings)
    # Read and write URLs are set too: else a stray CELERY_BROKER_URL in the environment wins over broker_url.
    broker_url = broker_read_url = broker_write_url = celery_url(settings.broker_url)
    result_backend = celery_url(settings.result_url)
except SettingsError as error:
    message = f"pollchat: {error}"
    raise SystemExit(message) from None

broker_use_ssl = tls_options(settings.broker_url)
redis_backend_use_ssl = tls_options(settings.result_url)

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

# When Redis is away, wait for it, however long; when it refuses because it is full, retry instead of exiting.
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
broker_channel_error_retry = True
worker_cancel_long_running_tasks_on_connection_loss = False  # True lost runs; a sweep may safely run twice

# A task is acknowledged when it is done, and is delivered again when its process was killed.
task_acks_late = True
task_reject_on_worker_lost = True
worker_prefetch_multiplier = 1  # with early acks or more prefetch a worker exits when Redis dies

# Tasks are short: they end at their own time budget, else at the soft, else at the hard limit.
task_soft_time_limit = 60
task_time_limit = 75
worker_concurrency = 2  # a sweep keeps one Redis busy; each process costs 50 MB
worker_max_tasks_per_child = 1000  # a memory leak in a library stays small

# Only JSON is sent and accepted.
task_serializer = result_serializer = event_serializer = "json"
accept_content = result_accept_content = ["json"]

# Results of runs by hand; runs of beat store none (see tasks/schedule.py).
result_expires = 3600  # seconds
result_extended = True  # Flower and `celery result` show name and arguments

# Flower shows these events.
worker_send_task_events = True
task_send_sent_event = True
task_track_started = True

# Celery's scheduler keeps a file, which can be corrupted and needs a writable folder. This one keeps in Redis when each
# run was last scheduled, and cleans in beat's own process when Redis is too full for a task.
beat_scheduler = f"{__name__.replace('celeryconfig', 'tasks')}.robust.scheduler:Scheduler"
beat_max_loop_interval = 5  # seconds; with the default of 300 beat answers a signal or a changed clock late
beat_enable_remote_control = True  # beat answers a ping: `celery -A tasks health beat --ping`
timezone = "UTC"  # of cron expressions
enable_utc = True

# One line per event, readable in a journal.
worker_log_format = beat_log_format = "%(asctime)s %(levelname)s %(message)s"
worker_task_log_format = "%(asctime)s %(levelname)s %(task_name)s[%(task_id).8s] %(message)s"
worker_redirect_stdouts = False
