"""Run worker, beat and Flower side by side, and Redis with them when none answers. Started by ./deploy/up."""

import os
import shlex
import socket
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from urllib.parse import urlsplit

from dotenv import dotenv_values, find_dotenv
from embedded import start_embedded
from programs import Programs
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chat import Settings, SettingsError
from chat._urls import redact_url
from chat.connection import connect

ROOT = Path.cwd()
DATA = ROOT / ".data"
LOOPBACK = "127.0.0.1"
LAST_PORT = 65535
CELERY = (sys.executable, "-m", "celery", "-A", "tasks")
FLOWER_OPTIONS = (
    f"--address={LOOPBACK}",
    "--purge_offline_workers=60",  # killed ones would stay for ever
    "--tasks-columns=name,state,kwargs,result,received,runtime,worker",  # the reports at a glance
)
BANNER = """
  Redis   {redis}
  worker  celery -A tasks worker, beat: its output is below
  Flower  http://{loopback}:{flower}, metrics at /metrics{room}

  Try in a second terminal{secret}:
    {first}
    chat send lobby "hi"
    chat check bob lobby
    celery -A tasks clean all --dry-run
    chat stats --watch

  Ctrl-C stops all of it.

"""
ROOM = "\n  room    http://{}:{}, a chat room: open it twice"


def main(*, example: bool) -> int:
    """Start everything, wait, stop everything."""
    programs = Programs()
    try:
        url = Settings.from_env().redis_url
        from_file = {name: value for name, value in dotenv_values(find_dotenv(usecwd=True)).items() if value}
        environment = from_file | {name: value for name, value in os.environ.items() if value}
        flower = free_port("FLOWER_PORT", environment.get("FLOWER_PORT") or "5555")
        room = free_port("EXAMPLE_PORT", environment.get("EXAMPLE_PORT") or "8000") if example else None
        where = "yours"
        if not answers(url):
            where = f"embedded Valkey, data in {DATA}"
            start_embedded(programs, embedded_port(url), DATA)
            while not (programs.why_end() or answers(url)):
                programs.look()
        if not programs.why_end():
            programs.say(banner(f"{redact_url(url)} ({where})", flower, room, from_file))
            start_all(programs, flower, room, environment)
        return programs.wait()
    except (SettingsError, OSError) as error:
        sys.exit(f"./deploy/up: {error}")
    except RedisError as error:
        sys.exit(f"./deploy/up: {redact_url(url)} answers, but not as it should ({error}): set REDIS_URL to a Redis")
    finally:
        programs.stop()


def free_port(name: str, text: str) -> int:
    """Return the port that a setting names, if it is one and is free."""
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(LAST_PORT)) and 0 < int(text) <= LAST_PORT):
        message = f"{name} is {text!r}, must be a whole number from 1 to {LAST_PORT}"
        raise SettingsError(message)
    refuse_taken(int(text), name)
    return int(text)


def refuse_taken(port: int, setting: str) -> None:
    """Say that a port cannot be used; the programs' own word for it is a stack trace."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            message = f"port {port} cannot be used ({error.strerror}): set {setting} to a free one"
            raise OSError(message) from None


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


def banner(redis: str, flower: int, room: int | None, from_file: Mapping[str, str]) -> str:
    """Return where everything is, and commands that find it from another terminal, where only .env is the same."""
    names = [field.metadata["name"] for field in fields(Settings)]
    ours = {name: os.environ[name] for name in names if os.environ.get(name, "") not in {"", from_file.get(name)}}
    exports = [f"export {name}={shlex.quote(redact_url(value))}" for name, value in ours.items()]
    secret = (
        ", with the password in place of the dots" if any(redact_url(value) != value for value in ours.values()) else ""
    )
    first = "\n    ".join([f"cd {shlex.quote(str(ROOT))}", ". .venv/bin/activate", *exports])
    room_line = ROOM.format(LOOPBACK, room) if room else ""
    return BANNER.format(redis=redis, loopback=LOOPBACK, flower=flower, room=room_line, secret=secret, first=first)


def start_all(programs: Programs, flower: int, room: int | None, environment: Mapping[str, str]) -> None:
    """Start what uses Redis; with what .env says, as Flower and the room read only the environment."""
    environment = {**environment, "PYTHONUNBUFFERED": "1"}  # else beat says at its end how it began
    worker = ["worker", "--loglevel=INFO", "--without-gossip", "--without-mingle"]
    programs.start("worker", [*CELERY, *worker], env=environment)
    programs.start("beat", [*CELERY, "beat", "--loglevel=INFO", "--pidfile="], env=environment)
    programs.start("flower", [*CELERY, "flower", f"--port={flower}", *FLOWER_OPTIONS], env=environment)
    if room:
        own = {**environment, "EXAMPLE_PORT": str(room)}
        programs.start("room", [sys.executable, "deploy/example/app.py"], env=own)


if __name__ == "__main__":
    sys.exit(main(example="--example" in sys.argv[1:]))
