"""./deploy/up as a newcomer runs it, in a copy of the project, without the installation step."""

from __future__ import annotations

import contextlib
import fcntl
import http.server
import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import termios
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guard import forget, watch
from redis import Redis
from servers import ROOT, Server, clean_environment, eventually, free_port

from chat import Chat, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow
FOLDER = 'it\'s "50 %" größer'  # a path with what means something to shells and to configuration files

TALKERS = """
from programs import Programs

programs = Programs()
for name in ("one", "two"):
    programs.start(name, ["/bin/sh", "-c", "echo ready.; while :; do echo talk; sleep 0.1; done"], ready=b"ready.")
programs.look_until(programs.are_ready)
programs.say("Ctrl-C stops all of it.")
code = programs.wait()
programs.stop()
raise SystemExit(code)
"""


class Up:
    def __init__(self, folder: Path) -> None:
        for name in ("chat", "tasks", "deploy"):
            shutil.copytree(ROOT / name, folder / name)
        shutil.copy(ROOT / "celeryconfig.py", folder)
        self.folder = folder
        self.port, self.flower = free_port(), free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None
        self.started: list[subprocess.Popen[bytes]] = []

    @property
    def output(self) -> str:
        return (self.folder / "up.log").read_text()

    def start(self, *options: str, output: int | None = None, terminal: bool = False, **environment: str) -> None:
        """Start it with its output in a file, or where it is told; `terminal`: one that it is the first process of."""
        ours = {"REDIS_URL": self.url, "FLOWER_PORT": str(self.flower), "PYTHONPATH": str(self.folder)}
        with (self.folder / "up.log").open("wb") as log:
            written = log.fileno() if output is None else output
            self.process = subprocess.Popen(
                [sys.executable, "deploy/supervise.py", *options],
                cwd=self.folder,
                env=clean_environment() | ours | environment,
                stdin=written if terminal else None,
                stdout=written,
                stderr=written,
                start_new_session=True,
                preexec_fn=(lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) if terminal else None,  # noqa: PLW1509
            )
        self.started.append(self.process)
        watch(self.process)

    def with_two_talkers(self) -> Up:
        """Let it start two shells that print in place of all programs: what ends it does not depend on them."""
        (self.folder / "deploy" / "supervise.py").write_text(TALKERS)
        return self

    def stop(self, how: signal.Signals, *, as_terminal: bool = False) -> int:
        """Signal it alone, or its whole process group as a terminal's Ctrl-C does."""
        assert self.process
        (os.killpg if as_terminal else os.kill)(self.process.pid, how)
        return self.process.wait(60)

    def is_running(self) -> bool:
        return "Ctrl-C stops all of it." in self.output

    def found(self, word: str) -> list[int]:
        """Return the processes in the folder with a word in their command line."""
        return [process for process, command in self.left().items() if word in command]

    def left(self) -> dict[int, str]:
        """Return the command lines of processes that still run in the folder."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (process / "cwd").readlink().is_relative_to(self.folder):
                    found[int(process.name)] = (process / "cmdline").read_text()
        return found


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    up = Up(tmp_path / FOLDER)
    yield up
    if up.process and up.process.poll() is None:
        up.process.kill()
        up.process.wait()
    for program in up.started:
        forget(program)
    for process in up.left():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def test_it_starts_everything_says_where_stops_it_all_and_keeps_the_data(up: Up) -> None:
    up.start()
    eventually(up.is_running, 60)
    for said in (up.url, "embedded Valkey", f"http://127.0.0.1:{up.flower}", "chat send lobby", "Ctrl-C"):
        assert said in up.output
    before, _, _ = up.output.partition("  Redis   ")
    start, *lines = before.rstrip().splitlines()
    assert start == "starting a worker, beat and Flower; their addresses follow when all are ready"
    assert [line for line in lines if " INFO " not in line] == []  # no page of configuration, no warning
    assert "ready.\n" in before
    assert "beat: Starting" in before
    sent = Chat.from_url(up.url).send_message("lobby", "hi")
    with urllib.request.urlopen(f"http://127.0.0.1:{up.flower}/healthcheck", timeout=10) as answer:
        assert answer.status == 200
    with Redis(port=up.port) as redis:
        assert redis.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        assert redis.config_get("appendonly")["appendonly"] == "yes"
    (server,) = up.found("valkey-server")
    environment = Path(f"/proc/{server}/environ").read_bytes().split(b"\0")
    assert b"GLIBC_TUNABLES=glibc.malloc.mxfast=0" in environment  # freed memory is merged as it comes
    assert up.stop(signal.SIGINT, as_terminal=True) == 130
    eventually(lambda: not up.left())
    assert "Traceback" not in up.output

    up.start()
    eventually(lambda: "ready." in up.output, 60)
    assert list(Chat.from_url(up.url).check_messages("bob", "lobby", history=5)) == [sent]
    assert up.stop(signal.SIGTERM) == 143
    eventually(lambda: not up.left())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CHAT_ARCHIVE", "/proc/x", "must be a folder that can be written here"),
        ("CHAT_ARCHIVE", "nosuch:fn", "which cannot be imported here: ModuleNotFoundError"),
        ("CHAT_ON_EXPIRE", "os:nosuch", "which cannot be imported here: AttributeError"),
        ("CHAT_CLEAN_CHANNELS_EVERY", "abc", "must be a number of seconds above 0"),
    ],
)
def test_what_worker_and_beat_would_refuse_is_one_line_before_anything_starts(
    up: Up, name: str, value: str, said: str
) -> None:
    up.start(**{name: value})
    assert up.process
    assert up.process.wait(60) == 1
    assert f"{name} is {value!r}, {said}" in up.output
    assert len(up.output.splitlines()) == 1
    assert not (up.folder / ".data").exists()


def test_data_in_another_number_of_shards_is_one_line(up: Up, tmp_path: Path) -> None:
    server = Server("valkey", tmp_path).start()
    try:
        Chat.from_url(server.url).send_message("lobby", "hi")
        up.start(REDIS_URL=server.url, CHAT_SHARDS="32")
        assert up.process
        assert up.process.wait(60) == 1
    finally:
        server.stop()
    assert up.output.startswith("./deploy/up: the data in Redis is stored in 16 shards, this process has 32: ")
    assert len(up.output.splitlines()) == 1


def test_functions_for_archive_and_hook_are_found_where_the_worker_finds_them(up: Up) -> None:
    (up.folder / "mine.py").write_text("import os\nos.environ['WHERE']\ndef keep(channel, messages): pass\n")
    (up.folder / ".env").write_text("CHAT_ARCHIVE=mine:keep\nCHAT_ON_EXPIRE=mine:keep\nWHERE=here\n")
    up.start()
    eventually(up.is_running, 60)
    assert up.stop(signal.SIGTERM) == 143


def test_flower_shows_a_run_by_hand_with_its_report(up: Up) -> None:
    up.start(FLOWER_UNAUTHENTICATED_API="true")
    eventually(up.is_running, 60)
    chat = Chat.from_url(up.url)
    for number in range(3):
        chat.send_message("lobby", number)
    command = ["-m", "celery", "-A", "tasks", "call", "tasks.clean_backlog", "--kwargs", '{"backlog": 1}']
    environment = clean_environment() | {"REDIS_URL": up.url}
    called = subprocess.run(
        [sys.executable, *command], cwd=up.folder, env=environment, capture_output=True, text=True, check=True
    )
    task_id = called.stdout.strip()

    def shown() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{up.flower}/api/tasks", timeout=10) as answer:
            return str(json.load(answer).get(task_id, {}).get("result") or "")

    assert eventually(shown).startswith("removed 2 messages in")
    up.stop(signal.SIGTERM)
    eventually(lambda: not up.left())


@pytest.mark.parametrize(
    "url", ["redis://elsewhere.invalid:6379/0", "unix:///nowhere.sock", "redis://:pw@127.0.0.1:1/0"]
)
def test_a_redis_it_cannot_start_is_one_line(up: Up, url: str) -> None:
    up.start(REDIS_URL=url)
    assert up.process
    assert up.process.wait(60) == 1
    assert up.output.startswith("./deploy/up: nothing answers at REDIS_URL")
    assert len(up.output.splitlines()) == 1
    assert "pw" not in up.output


def test_with_the_example_it_starts_a_room_too(up: Up) -> None:
    port = free_port()
    up.start("--example", EXAMPLE_PORT=str(port))
    room = f"http://127.0.0.1:{port}"
    eventually(lambda: f"room    {room}, a chat room: open it twice" in up.output, 60)
    assert b"<title>" in eventually(lambda: page(room))
    up.stop(signal.SIGTERM)
    eventually(lambda: not up.left())


def page(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url) as answer:  # noqa: S310  ours
            return bytes(answer.read())
    except urllib.error.URLError:
        return b""


@pytest.mark.parametrize("how", [signal.SIGHUP, signal.SIGQUIT])
def test_whatever_signal_ends_it_ends_all_of_it(up: Up, how: signal.Signals) -> None:
    up.with_two_talkers().start()
    eventually(up.is_running, 60)
    assert up.stop(how) == 128 + how
    eventually(lambda: not up.left())


def test_when_its_terminal_is_closed_all_of_it_ends(up: Up) -> None:
    here, terminal = pty.openpty()
    up.with_two_talkers().start(output=terminal, terminal=True)
    os.close(terminal)
    read_until(here, b"ready.")
    os.close(here)
    assert up.process
    assert up.process.wait(60) == 128 + signal.SIGHUP
    eventually(lambda: not up.left())


def test_when_nobody_reads_its_output_any_more_all_of_it_ends(up: Up) -> None:
    here, pipe = os.pipe()
    up.with_two_talkers().start(output=pipe)
    os.close(pipe)
    read_until(here, b"Ctrl-C")
    os.close(here)
    assert up.process
    assert up.process.wait(60) == 128 + signal.SIGPIPE
    eventually(lambda: not up.left())


def test_a_reader_that_does_not_read_keeps_no_signal_away(up: Up) -> None:
    here, pipe = os.pipe()
    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
    up.with_two_talkers().start(output=pipe)
    eventually(lambda: not select.select([], [pipe], [], 0)[1] and len(up.left()) > 2, 60)
    assert up.stop(signal.SIGTERM) == 128 + signal.SIGTERM
    eventually(lambda: not up.left())
    os.close(pipe)
    os.close(here)


def read_until(where: int, word: bytes) -> None:
    got = b""
    while word not in got:
        got += os.read(where, 65536)


@pytest.mark.parametrize(("name", "program"), [("redis", "valkey-server"), ("worker", "worker"), ("beat", "beat")])
def test_when_one_of_it_is_killed_all_of_it_ends_and_says_which(up: Up, name: str, program: str) -> None:
    up.start()
    eventually(up.is_running, 60)
    os.kill(min(up.found(program)), signal.SIGKILL)
    assert up.process
    assert up.process.wait(60) == 128 + signal.SIGKILL
    assert up.output.count(f"./deploy/up: {name} was killed by SIGKILL") == 1
    eventually(lambda: not up.left())


def test_when_it_is_killed_itself_all_that_it_started_ends(up: Up) -> None:
    up.with_two_talkers().start()
    eventually(up.is_running, 60)
    assert up.stop(signal.SIGKILL) == -signal.SIGKILL
    eventually(lambda: not up.left())


def test_a_second_ctrl_c_kills_what_does_not_end(up: Up) -> None:
    deaf = 'trap "" TERM; echo deaf; while :; do sleep 1; done'
    program = f"""
from programs import Programs
programs = Programs()
programs.start("deaf", ["/bin/sh", "-c", {deaf!r}])
code = programs.wait()
programs.stop()
raise SystemExit(code)
"""
    (up.folder / "deploy" / "supervise.py").write_text(program)
    up.start()
    eventually(lambda: "deaf   | deaf" in up.output)
    assert up.process
    up.process.send_signal(signal.SIGINT)
    eventually(lambda: "Ctrl-C again" in up.output)
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(5) == 130  # a program that ends by itself has ten seconds
    assert not up.left()


def test_the_commands_it_shows_work_in_another_terminal(up: Up) -> None:
    (up.folder / ".venv").symlink_to(sys.prefix)
    (up.folder / ".env").write_text("CHAT_BACKLOG=50\n")
    up.start(CHAT_SHARDS="4", CHAT_PREFIX="other")
    eventually(up.is_running, 60)
    _, _, shown = up.output.partition("Try in a second terminal:\n")
    commands = shown.partition("\n\n")[0].replace(" --watch", "")
    done = subprocess.run(
        ["/bin/sh", "-ec", commands],
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(up.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("1\n")
    assert "bob is new in lobby" in done.stdout + done.stderr
    settings = Settings(shards=4, prefix="other")
    assert Chat.from_url(up.url, settings=settings).check_messages("eve", "lobby", history=5).messages


def test_it_tells_no_password(up: Up, tmp_path: Path) -> None:
    server = Server("valkey", tmp_path).start()
    try:
        with server.client() as client:
            client.acl_setuser("me", enabled=True, passwords=["+pw"], keys=["*"], channels=["*"], categories=["+@all"])
        up.start(REDIS_URL=server.url.replace("//", "//me:pw@"))
        eventually(lambda: "Ctrl-C" in up.output, 60)
        assert "second terminal, with the password in place of the dots:\n" in up.output
        assert "pw" not in up.output
        up.stop(signal.SIGTERM)
    finally:
        server.stop()


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_says_what_it_takes(option: str) -> None:
    done = subprocess.run(["./deploy/up", option], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Start everything: ")
    assert [word for word in ("--example", "PYTHON=", "FLOWER_PORT") if word not in done.stdout] == []


def test_an_option_that_is_none_is_one_line() -> None:
    done = subprocess.run(["./deploy/up", "--exmaple"], cwd=ROOT, capture_output=True, text=True, check=False)
    said = "./deploy/up: --exmaple is no option, must be --example, --help or nothing\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


@pytest.mark.parametrize("port", ["abc", "0", "65536", "-1", "5" * 5000])
def test_a_port_that_is_none_is_one_line(up: Up, port: str) -> None:
    up.start(FLOWER_PORT=port)
    assert up.process
    assert up.process.wait(60) == 1
    assert up.output == f"./deploy/up: FLOWER_PORT is {port!r}, must be a whole number from 1 to 65535\n"


def test_ports_are_read_from_the_file_too(up: Up) -> None:
    (up.folder / ".env").write_text("FLOWER_PORT=abc\nEXAMPLE_PORT=8001\n")
    up.start(FLOWER_PORT="")
    assert up.process
    assert up.process.wait(60) == 1
    assert up.output.startswith("./deploy/up: FLOWER_PORT is 'abc', must be")
    up.start("--example", EXAMPLE_PORT="8002x")
    assert up.process.wait(60) == 1
    assert up.output.startswith("./deploy/up: EXAMPLE_PORT is '8002x', must be")


@pytest.mark.parametrize("what", ["FLOWER_PORT", "that of REDIS_URL"])
def test_a_port_that_another_has_is_one_line(up: Up, what: str) -> None:
    port = up.flower if what == "FLOWER_PORT" else up.port
    with socket.create_server(("127.0.0.1", port)):
        up.start()
        assert up.process
        assert up.process.wait(60) == 1
    assert up.output == f"./deploy/up: port {port} cannot be used (Address already in use): set {what} to a free one\n"
    assert not up.left()


@pytest.mark.parametrize("other", ["EXAMPLE_PORT", "the port of REDIS_URL"])
def test_a_port_that_two_would_have_is_one_line(up: Up, other: str) -> None:
    port = up.flower if other == "EXAMPLE_PORT" else up.port
    up.start("--example", FLOWER_PORT=str(port), EXAMPLE_PORT=str(up.flower))
    assert up.process
    assert up.process.wait(60) == 1
    assert up.output == f"./deploy/up: FLOWER_PORT and {other} are both {port}, must differ: change one of them\n"
    assert not up.left()


def test_the_reason_why_one_of_it_ended_is_the_last_line(up: Up) -> None:
    other = 'trap "echo other words; exit" TERM; echo up; while :; do sleep 0.1; done'
    program = f"""
from programs import Programs
programs = Programs()
programs.start("other", ["/bin/sh", "-c", {other!r}], ready=b"up")
programs.look_until(programs.are_ready)
programs.start("ends", ["/bin/sh", "-c", "echo; printf 'the reason'; exit 3"])
code = programs.wait()
programs.stop()
raise SystemExit(code)
"""
    (up.folder / "deploy" / "supervise.py").write_text(program)
    up.start()
    assert up.process
    assert up.process.wait(60) == 3
    assert "other  | other words" in up.output
    assert up.output.endswith("\n./deploy/up: last line of ends: the reason\n")


def test_an_embedded_server_that_cannot_start_says_where_its_reason_is(up: Up) -> None:
    (up.folder / ".data" / "appendonlydir").mkdir(parents=True)
    (up.folder / ".data" / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    up.start()
    assert up.process
    assert up.process.wait(60) == 1
    log = up.folder / ".data" / "valkey.log"
    assert up.output.startswith(f"./deploy/up: redis ended with code 1, its log is {log}: ")
    assert len(up.output.splitlines()) == 1
    assert "manifest" in log.read_text()


def test_a_port_where_something_else_answers_is_one_line(up: Up) -> None:
    with http.server.HTTPServer(("127.0.0.1", up.port), http.server.BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.handle_request).start()
        up.start()
        assert up.process
        assert up.process.wait(60) == 1
    assert up.output.startswith(f"./deploy/up: {up.url} answers, but not as it should (")
    assert len(up.output.splitlines()) == 1


def test_two_embedded_servers_never_share_a_folder(up: Up) -> None:
    up.start()
    eventually(lambda: "Ctrl-C" in up.output, 60)
    second = subprocess.run(
        [sys.executable, "deploy/supervise.py"],
        cwd=up.folder,
        env=clean_environment()
        | {
            "REDIS_URL": f"redis://127.0.0.1:{free_port()}",
            "FLOWER_PORT": str(free_port()),
            "PYTHONPATH": str(up.folder),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    data = up.folder / ".data"
    said = f"./deploy/up: {data} is in use by another embedded Valkey: stop that, or set REDIS_URL to its port\n"
    assert (second.returncode, second.stdout, second.stderr) == (1, "", said)
    assert up.stop(signal.SIGTERM) == 143
