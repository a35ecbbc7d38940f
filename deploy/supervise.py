"""Run worker, beat and Flower side by side, and Redis with them when none answers. Started by ./deploy/up."""

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from urllib.parse import urlsplit

from dotenv import dotenv_values, find_dotenv
from embedded import start_embedded
from ports import LOOPBACK, free_port, listens, refuse_equal, refuse_taken
from programs import Programs
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chat import SettingsError, ShardsMismatchError
from chat.store.connect import connect
from chat.store.keys import Keys
from chat.store.shards import confirm_shards
from chat.store.urls import redact_url
from tasks import app
from tasks.robust.checks import try_destinations
from tasks.settings import Settings

ROOT = Path.cwd()
DATA = ROOT / ".data"
CELERY = (sys.executable, "-m", "celery", "--quiet", "-A", "tasks")  # quiet: no page of its configuration
FLOWER_OPTIONS = (
    f"--address={LOOPBACK}",
    "--logging=warning",  # else it lists all tasks
    "--purge_offline_workers=60",  # killed ones would stay for ever
    "--tasks-columns=name,state,kwargs,result,received,runtime,worker",  # the reports at a glance
)
# What Celery says to root is about tasks of others: these are ours, and only JSON comes in.
AS_ROOT = "ignore:You're running the worker with superuser privileges"
BANNER = """
  Redis   {redis}
  worker  celery -A tasks worker, beat: their output is above and below
  Flower  http://{loopback}:{flower}, metrics at /metrics{room}

  Try in a second terminal{secret}:
    {first}
    chat send lobby "hi"
    chat check bob lobby
    celery -A tasks clean all --dry-run
    celery -A tasks stats --watch

  Ctrl-C stops all of it.

"""
ROOM = "\n  room    http://{}:{}, a chat room: open it twice"


def main(*, example: bool) -> int:
    """Start everything, wait, stop everything."""
    programs = Programs()
    try:
        settings = Settings.from_env()
        url = settings.redis_url
        from_file = {name: value for name, value in dotenv_values(find_dotenv(usecwd=True)).items() if value}
        os.environ.update({name: value for name, value in from_file.items() if not os.environ.get(name)})
        ports = chosen_ports(example=example)
        refuse_what_cannot_work()
        where = start_redis(programs, url, ports)
        if not programs.why_end():
            refuse_other_shards(settings)
            programs.say("starting a worker, beat and Flower; their addresses follow when all are ready\n")
            start_all(programs, ports)
        if not programs.why_end():
            programs.say(banner(f"{redact_url(url)} ({where})", ports, from_file))
        return programs.wait()
    except (SettingsError, ShardsMismatchError, OSError) as error:
        sys.exit(f"./deploy/up: {error}")
    except RedisError as error:
        sys.exit(f"./deploy/up: {redact_url(url)} answers, but not as it should ({error}): set REDIS_URL to a Redis")
    finally:
        programs.stop()


def chosen_ports(*, example: bool) -> dict[str, int]:
    """Return the ports of Flower and of the room, by the names of their settings."""
    defaults = {"FLOWER_PORT": "5555"} | ({"EXAMPLE_PORT": "8000"} if example else {})
    ports = {name: free_port(name, os.environ.get(name) or default) for name, default in defaults.items()}
    refuse_equal(ports)
    return ports


def refuse_what_cannot_work() -> None:
    """End with the line that worker and beat end with, before anything is started."""
    sys.path[0] = str(ROOT)  # where both look first for an archive or a hook that is a function
    _ = app.conf.beat_schedule  # reads the configuration
    try_destinations()


def refuse_other_shards(settings: Settings) -> None:
    """End when the data in Redis is stored in another number of shards: each sweep would fail."""
    with connect(settings.redis_url, retries=0) as client:
        confirm_shards(client, Keys(settings.prefix, settings.shards), create=False)


def start_redis(programs: Programs, url: str, ports: dict[str, int]) -> str:
    """Start the embedded server where no Redis answers; return whose Redis it is.

    Args:
        programs: that it becomes one of.
        url: where it is looked for.
        ports: of the others, by the names of their settings; its own must be another.
    """
    if answers(url):
        return "yours"
    port = embedded_port(url)
    refuse_equal({**ports, "the port of REDIS_URL": port})
    start_embedded(programs, port, DATA)
    programs.look_until(lambda: answers(url))
    return f"embedded Valkey, data in {DATA}"


def answers(url: str) -> bool:
    """Return whether a Redis is there."""
    try:
        with connect(url, retries=0, timeout=2) as client:
            return bool(client.ping())
    except AuthenticationError:
        raise
    except (RedisConnectionError, RedisTimeoutError):
        return False


def embedded_port(url: str) -> int:
    """Return the port for an embedded server where nothing answers at `url`."""
    parts = urlsplit(url)
    if parts.scheme != "redis" or parts.hostname not in {"localhost", LOOPBACK} or parts.password:
        where = f"nothing answers at REDIS_URL ({redact_url(url)})"
        message = f"{where}, and it is not for ./deploy/up to start: start it, or unset it"
        raise OSError(message)
    port = parts.port or 6379
    refuse_taken(port, "that of REDIS_URL")
    return port


def banner(redis: str, ports: Mapping[str, int], from_file: Mapping[str, str]) -> str:
    """Return where everything is, and commands that find it from another terminal, where only .env is the same."""
    names = [field.metadata["name"] for field in fields(Settings)]
    ours = {name: os.environ[name] for name in names if os.environ.get(name, "") not in {"", from_file.get(name)}}
    exports = [f"export {name}={shlex.quote(redact_url(value))}" for name, value in ours.items()]
    secret = (
        ", with the password in place of the dots" if any(redact_url(value) != value for value in ours.values()) else ""
    )
    first = "\n    ".join([f"cd {shlex.quote(str(ROOT))}", ". .venv/bin/activate", *exports])
    room = ROOM.format(LOOPBACK, ports["EXAMPLE_PORT"]) if "EXAMPLE_PORT" in ports else ""
    flower = ports["FLOWER_PORT"]
    return BANNER.format(redis=redis, loopback=LOOPBACK, flower=flower, room=room, secret=secret, first=first)


def start_all(programs: Programs, ports: Mapping[str, int]) -> None:
    """Start what uses Redis, and wait until it is ready.

    Their environment has what .env says, as Flower and the room do not read it; what is empty is not set.
    """
    environment = {name: value for name, value in os.environ.items() if value}
    environment["PYTHONUNBUFFERED"] = "1"  # else beat says at its end how it began
    quieter = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), AS_ROOT]))
    worker = ["worker", "--loglevel=INFO", "--without-gossip", "--without-mingle"]
    programs.start("worker", [*CELERY, *worker], ready=b" ready.", env=environment | {"PYTHONWARNINGS": quieter})
    programs.start("beat", [*CELERY, "beat", "--loglevel=INFO", "--pidfile="], ready=b"beat: Starting", env=environment)
    programs.look_until(programs.are_ready)  # Flower asks the workers when it starts, and logs each that is not there
    if programs.why_end():
        return
    flower = [*CELERY, "flower", f"--port={ports['FLOWER_PORT']}", *FLOWER_OPTIONS]
    programs.start("flower", flower, env=environment)
    if "EXAMPLE_PORT" in ports:
        room = {"EXAMPLE_PORT": str(ports["EXAMPLE_PORT"])}
        programs.start("room", [sys.executable, "deploy/example/app.py"], env=environment | room)
    programs.look_until(lambda: all(listens(port) for port in ports.values()))


if __name__ == "__main__":
    sys.exit(main(example="--example" in sys.argv[1:]))
