"""The users of deploy/redis/users.acl, on real servers: each may do its work, which leaves no refusal, and no more."""

from __future__ import annotations

import asyncio
import inspect
import re
import subprocess
import threading
import urllib.request
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from clusters import Cluster
from lab import Lab, bodies
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from servers import BINARIES, ROOT, Program, Server, beat, eventually, every, free_port, run, worker

import chat.store.scripts
import chat.waiting.registry
import tasks.archive.scripts
import tasks.cleaning.scripts
from chat import AsyncChat, Chat
from chat.store.connect import connect
from chat.store.scripts import Script
from tasks.cleaning import SWEEPS, clean_backlog
from tasks.settings import Settings
from tasks.stats.figures import read_stats

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("acl")]

ACL = ROOT / "deploy/redis/users.acl"
PAGE = ROOT / "deploy/README.md"
PASSWORDS = {"chat": "one", "daemon": "two", "monitor": "three"}
ADMIN = "user default on nopass ~* &* +@all"  # the tests' own hands


def acl_file(folder: Path, default: str = ADMIN) -> Path:
    """Return a copy of the file with passwords, as an operator makes it, and with another default user.

    It has the same users once more, as ``eu-chat`` and so on, for a second chat whose prefix begins as the first one's.
    """
    text = ACL.read_text("ascii")
    text += text.replace("user default off\n", "").replace("chat:", "chat:eu:").replace("user ", "user eu-")
    for user, password in PASSWORDS.items():
        text = text.replace(f"#SHA256-FOR-{user.upper()}", f"#{sha256(password.encode()).hexdigest()}")
    copy = folder / "users.acl"
    copy.write_text(text.replace("user default off", default))
    return copy


def login(url: str, user: str) -> str:
    return url.replace("//", f"//{user}:{PASSWORDS[user.removeprefix('eu-')]}@")


@dataclass
class Guarded:
    """A server with the three users, and hands to work as one of them."""

    server: Server
    admin: Redis

    def url(self, user: str) -> str:
        return login(self.server.url, user)

    def client(self, user: str) -> Redis:
        return Redis.from_url(self.url(user))

    def celery(self, user: str, *words: str, **settings: str) -> tuple[int, str]:
        done = run("-m", "celery", "-A", "tasks", *words, **{"REDIS_URL": self.url(user)} | settings)
        return done.returncode, done.stdout + done.stderr

    def refused(self) -> list[tuple[str, str, str]]:
        """Return what was refused to whom since the start or the last call."""
        entries: list[dict[str, Any]] = self.admin.acl_log()
        self.admin.acl_log_reset()
        return [(entry["username"], entry["context"], entry["object"]) for entry in entries]


@pytest.fixture(scope="module", params=BINARIES)
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("acl")
    server = Server(request.param, folder, {"aclfile": str(acl_file(folder))}).start()
    with server.client() as admin:
        yield Guarded(server, admin)
    server.stop()


@pytest.fixture
def guarded(started: Guarded) -> Guarded:
    """The server, empty and with nothing refused."""
    started.admin.flushall()
    started.admin.script_flush()
    started.refused()
    return started


# Each user may do its work.


def use(chat: Chat) -> None:
    """Call everything that a Chat has."""
    chat.check_messages("bob", "lobby")
    heard: list[Any] = []
    waiting = threading.Thread(target=lambda: heard.extend(bodies(chat.check_messages("bob", "lobby", wait=60))))
    waiting.start()
    chat.send_message("lobby", "hi", key="once")
    waiting.join()
    chat.check_many("eve", ["lobby", "tea"], history=9)
    next(chat.listen("ann", "lobby", history=1))
    assert heard == bodies(chat.read_history("lobby", before=9)) == ["hi"]
    assert {one.client for one in chat.clients("lobby")} == {"bob", "eve", "ann"}
    assert (chat.count_clients("lobby"), list(chat.channels())) == (3, ["lobby"])
    chat.leave_channel("ann", "lobby")


async def use_async(chat: AsyncChat) -> None:
    """Call everything that an AsyncChat has."""
    async with chat:
        await chat.check_messages("bob", "den")
        waiting = asyncio.create_task(chat.check_messages("bob", "den", wait=60))
        await chat.send_message("den", "hi", key="once")
        assert bodies(await waiting) == bodies([*await chat.read_history("den", before=9)]) == ["hi"]
        await chat.check_many("eve", ["den", "tea"], history=9)
        await anext(aiter(chat.listen("ann", "den", history=1)))
        assert {one.client async for one in chat.clients("den")} == {"bob", "eve", "ann"}
        assert await chat.count_clients("den") == 3
        assert "den" in [name async for name in chat.channels()]
        await chat.leave_channel("ann", "den")


def test_chat_sends_checks_waits_and_lists(guarded: Guarded) -> None:
    with Chat.from_url(guarded.url("chat")) as chat:
        use(chat)
    asyncio.run(use_async(AsyncChat.from_url(guarded.url("chat"))))
    assert guarded.refused() == []


def make_due(lab: Lab) -> None:
    """Leave something due for each sweep: a channel, messages and a client."""
    lab.send("gone", "m")
    lab.idle("gone", 901)
    lab.send_all("lobby", 60)
    lab.check("bob", "lobby")
    lab.away("bob", "lobby", 9000)


def flower_of(folder: Path, environment: dict[str, str]) -> tuple[Program, int]:
    port = free_port()
    arguments = ["-m", "celery", "-A", "tasks", "flower", "--address=127.0.0.1", f"--port={port}"]
    return Program("flower", arguments, environment, folder), port


def read(port: int, path: str) -> str:
    """Return a page of Flower."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=20) as page:
        return str(page.read().decode())


TASKS = "tasks/datatable?draw=1&start=0&length=99&order[0][column]=0&columns[0][data]=name"
ON_EXPIRE = """
from chat import Chat

chat = Chat.from_env()


def announce(channel, clients):
    for client in clients or ():
        chat.send_message("news", f"{client} left")
"""
REPAIR = """
from contextlib import suppress

from tasks import app

with app.connection() as connection:
    result = app.send_task("tasks.clean_clients", connection=connection)
    consumer = app.backend.result_consumer
    consumer.start(result.id)
    consumer._reconnect_pubsub()
    queue = app.amqp.queues["pollchat"](connection.default_channel)
    message = queue.get()
    message.requeue()
    queue.get()
    connection.default_channel.visibility_timeout = -1
    connection.default_channel.qos.restore_visible(interval=1)
    queue.get().ack()
    with suppress(ZeroDivisionError), connection.default_channel.conn_or_acquire() as client:
        client.transaction(lambda pipe: 1 / 0, "unacked")
"""


def test_daemon_runs_worker_beat_flower_and_the_commands(guarded: Guarded, tmp_path: Path) -> None:
    archive = str(tmp_path / "archive")
    (tmp_path / "told.py").write_text(ON_EXPIRE)
    settings = {"CHAT_ARCHIVE": archive, "CHAT_HARD_BACKLOG": "0"}
    lab = Lab(guarded.admin, hard_backlog=0)
    environment = {"REDIS_URL": guarded.url("daemon"), "CHAT_ON_EXPIRE": "told:announce"} | settings
    flower, port = flower_of(tmp_path, environment)
    programs = [
        flower,
        worker(tmp_path, environment),
        beat(tmp_path, environment | every(1)),
    ]
    make_due(lab)
    try:
        for program in programs[:2]:
            program.start()
        eventually(lambda: "Visit me at" in programs[0].output and "ready." in programs[1].output)
        programs[2].start()
        eventually(lambda: all(guarded.admin.hexists("chat:runs", f"{sweep}:ended") for sweep in SWEEPS))
        programs[2].stop()
        assert lab.traces("gone") == {}
        assert "bob left" in bodies([*lab.chat.read_history("news")])
        make_due(lab)
        code, said = guarded.celery("daemon", "clean", "all", **settings)
        assert code == 0, said
        eventually(lambda: all(f"tasks.{sweep}" in read(port, TASKS) for sweep in SWEEPS))
        assert "chat_up 1.0" in read(port, "metrics")
        assert "pollchat" in read(port, "broker")
        make_due(lab)
        commands = ("clean all --now", "stats", f"restore {archive}", "inspect ping")
        for words in commands:
            code, said = guarded.celery("daemon", *words.split(), **settings)
            assert code == 0, said
    finally:
        for program in reversed(programs):
            program.stop()
    assert guarded.refused() == []


def test_daemon_delivers_a_task_again_and_reconnects(guarded: Guarded) -> None:
    done = run("-c", REPAIR, REDIS_URL=guarded.url("daemon"))
    assert (done.returncode, done.stderr) == (0, "")
    assert guarded.admin.exists("chat:celery:unacked", "chat:celery:pollchat") == 0
    assert guarded.refused() == []


def test_monitor_reads_stats_previews_metrics_and_lists(guarded: Guarded, tmp_path: Path) -> None:
    make_due(Lab(guarded.admin))
    for words in ("stats", "stats --shards --json", "clean all --dry-run --now"):
        code, said = guarded.celery("monitor", *words.split())
        assert code == 0, said
    with Chat.from_url(guarded.url("monitor")) as chat:
        assert chat.read_history("lobby", limit=None)[-1].body == "m60"
        assert [one.client for one in chat.clients("lobby")] == ["bob"]
        assert (chat.count_clients("lobby"), set(chat.channels())) == (1, {"lobby", "gone"})
    celery = dict.fromkeys(("CHAT_BROKER_URL", "CHAT_RESULT_URL"), guarded.url("daemon"))
    flower, port = flower_of(tmp_path, {"REDIS_URL": guarded.url("monitor")} | celery)
    try:
        flower.start()
        eventually(lambda: "Visit me at" in flower.output)
        assert "chat_up 1.0" in read(port, "metrics")
    finally:
        flower.stop()
    assert guarded.refused() == []


@pytest.mark.parametrize("engine", BINARIES)
def test_all_three_work_on_a_cluster(engine: str, tmp_path: Path) -> None:
    with Cluster(engine, tmp_path, options={"aclfile": str(acl_file(tmp_path))}) as cluster:
        url = login(cluster.url, "chat")
        with Chat.from_url(url) as chat:
            use(chat)
        asyncio.run(use_async(AsyncChat.from_url(url)))
        with connect(login(cluster.url, "daemon")) as daemon, connect(login(cluster.url, "monitor")) as monitor:
            assert clean_backlog(daemon, backlog=1).completed
            assert read_stats(monitor).channels == 2
        for node in cluster.nodes:
            with node.client() as admin:
                assert Guarded(node, admin).refused() == []


def permitted(user: str) -> set[str]:
    """Return the rules of a user in the file."""
    (line,) = re.findall(rf"^user {user} on #\S+ resetchannels (.*)", ACL.read_text("ascii"), re.MULTILINE)
    return set(line.split())


def commands_of(*modules: ModuleType, reading: bool = False) -> set[str]:
    """Return the commands in the scripts of modules, also those of steps that are rarely taken."""
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Script)]
    found += [script._fallback[1] for script in found if script._fallback]
    sources = "\n".join(script.source for script in found if not (reading and script._writes))
    return {f"+{name.lower()}" for name in re.findall(r"(?:call\(|of_all\(\w+, )'([A-Z]+)'", sources)}


def test_every_command_of_its_scripts_is_permitted(guarded: Guarded) -> None:
    daemon = (tasks.cleaning.scripts, tasks.archive.scripts)
    subscribing = re.findall(r'_commands\("([A-Z]+)"', inspect.getsource(chat.waiting.registry))
    assert len(subscribing) == 3
    used = {
        "chat": commands_of(chat.store.scripts) | {f"+{name.lower()}" for name in subscribing},
        "daemon": commands_of(*daemon),
        "monitor": commands_of(chat.store.scripts, *daemon, reading=True),
    }
    used["monitor"] -= {
        f"+{name}" for name in guarded.admin.acl_cat("write")
    }  # in steps that reading scripts do not take
    assert {user: names - permitted(user) for user, names in used.items()} == {user: set() for user in PASSWORDS}


def test_every_rule_has_its_reason_on_the_page() -> None:
    rows = re.findall(r"^\| ([a-z, ]+) \| (`.*`) \| .+ \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    told: dict[str, set[str]] = {user: set() for user in PASSWORDS}
    for users, rules in rows:
        for user in users.split(", "):
            told[user].update(rules.strip("`").replace("\\|", "|").split())
    assert told == {user: permitted(user) for user in PASSWORDS}


# No user may do more.

BOTH = [("FLUSHALL",), ("CONFIG", "GET", "*"), ("CONFIG", "SET", "maxmemory", "1"), ("KEYS", "*"), ("ACL", "LIST"),
        ("CLIENT", "KILL", "ID", "1"), ("SHUTDOWN",), ("GET", "other"), ("GET", "chat:eu:shards")]  # fmt: skip
WRITES = [("SET", "chat:shards", "1"), ("HSET", "chat:{0}:meta", "sent", "1"), ("DEL", "chat:runs"),
          ("EVAL", "return redis.call('DEL', KEYS[1])", 1, "chat:{0}:meta")]  # fmt: skip
HIDDEN = "return redis.call('LRANGE', 'chat:' .. 'eu:{0}:log:lobby', 0, -1)"  # a key that is not in KEYS


@pytest.mark.parametrize(
    ("user", "refused"),
    [
        ("chat", [*BOTH, ("LRANGE", "chat:celery:pollchat", 0, -1), ("HGET", "chat:runs", "x"), ("INFO",),
                  ("LLEN", "chat:celery:pollchat"), ("RPUSH", "chat:celery:pollchat", "x"), ("DEL", "chat:shards"),
                  ("SSUBSCRIBE", "chat:celery:x"), ("PUBLISH", "chat:{0}:log:lobby", "x")]),
        ("daemon", [*BOTH, ("DEL", "other"), ("PSUBSCRIBE", "*"), ("SUBSCRIBE", "other"),
                    ("SSUBSCRIBE", "chat:{0}:log:x")]),
        ("monitor", [*BOTH, *WRITES, ("LRANGE", "chat:celery:unacked_index", 0, -1), ("PUBLISH", "x", "x"),
                     ("GET", "chat:celery:celery-task-meta-x"), ("SSUBSCRIBE", "chat:{0}:log:lobby")]),
    ],
)  # fmt: skip
def test_what_is_not_its_own_is_refused(guarded: Guarded, user: str, refused: list[tuple[Any, ...]]) -> None:
    with guarded.client(user) as client:
        for words in refused:
            with pytest.raises(NoPermissionError):
                client.execute_command(*words)
        with pytest.raises(RedisError, match=r"ACL failure|access"):
            client.execute_command("EVAL_RO", HIDDEN, 0)


def test_monitor_neither_sends_nor_cleans(guarded: Guarded) -> None:
    lab = Lab(guarded.admin)
    make_due(lab)
    before = lab.traces("gone"), len(lab.chat.read_history("lobby", limit=None))
    with Chat.from_url(guarded.url("monitor")) as chat:
        for call in (lambda: chat.send_message("lobby", "no"), lambda: chat.check_messages("eve", "lobby")):
            with pytest.raises(NoPermissionError):
                call()
    code, said = guarded.celery("monitor", "clean", "all", "--now")
    assert (code, "permission" in said) == (1, True)
    assert (lab.traces("gone"), len(lab.chat.read_history("lobby", limit=None))) == before


@pytest.mark.parametrize(("own", "other"), [("", "eu-"), ("eu-", "")])
def test_a_chat_cannot_read_one_of_another_prefix(guarded: Guarded, own: str, other: str) -> None:
    settings = {"": Settings(), "eu-": Settings(prefix="chat:eu")}
    with Chat.from_url(guarded.url(f"{own}chat"), settings=settings[own]) as chat:
        use(chat)
    assert guarded.refused() == []
    for user in PASSWORDS:
        with Chat.from_url(guarded.url(f"{other}{user}"), settings=settings[own]) as chat:
            for call in (lambda: chat.read_history("lobby"), lambda: list(chat.channels())):
                with pytest.raises(NoPermissionError):
                    call()


# The file itself.


@pytest.mark.parametrize("engine", BINARIES)
def test_a_server_does_not_start_while_a_password_is_missing(engine: str, tmp_path: Path) -> None:
    words = ["--port", "0", "--unixsocket", "socket", "--save", "", "--aclfile", str(ACL)]
    done = subprocess.run(
        [BINARIES[engine], *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "password hash" in done.stdout) == (1, True)


def test_without_a_login_nothing_is_permitted(guarded: Guarded) -> None:
    guarded.admin.acl_setuser("default", enabled=False)
    try:
        with guarded.server.client() as nobody, pytest.raises(AuthenticationError):
            nobody.ping()
    finally:
        guarded.admin.acl_setuser("default", enabled=True, nopass=True)
    assert "user default off" in ACL.read_text("ascii").splitlines()
