"""What cleaning removes can be kept, announced, and read back."""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import sys
import threading
from contextlib import closing
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from lab import Lab, bodies, calls, kept, keys
from servers import ROOT, Program, Server, eventually, run

import tasks.periodic
from chat import InvalidArgumentError, SettingsError
from chat._values import Message
from chat.store.entries import decode_slice, time_of
from chat.store.nodes import nodes
from tasks.archive import destinations
from tasks.archive.folder import Folder
from tasks.archive.reader import Reader
from tasks.cleaning import clean_backlog, clean_channels, clean_clients, hand_over
from tasks.cleaning import run as sweep_run
from tasks.cleaning.hand_over import HandOver
from tasks.cleaning.removal import Removal
from tasks.cleaning.scripts import FORGET_CLIENTS
from tasks.stats.figures import read_stats

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chat.store.nodes import Client

pytestmark = pytest.mark.on_cluster

ROOMS = [f"room {number}" for number in range(12)]


def test_the_backlog_that_is_removed_is_kept_and_nothing_else(archived: Lab, folder: Path) -> None:
    for channel in ROOMS:
        archived.send_all(channel, 5)
    report = clean_backlog(archived.redis, settings=archived.settings)
    assert (report.messages, report.archived, report.completed, report.error) == (24, 24, True, "")
    assert kept(folder) == sorted((channel, number, f"m{number}") for channel in ROOMS for number in (1, 2))
    assert [message.id for message in archived.chat.read_history("room 7")] == [3, 4, 5]


def test_the_messages_of_an_idle_channel_are_kept(archived: Lab, folder: Path) -> None:
    sent = [archived.send("lobby", body) for body in ("hi", {"é": [1, None]}, "\ud800")]
    archived.idle("lobby", 901)
    report = clean_channels(archived.redis, settings=archived.settings)
    assert (report.channels, report.messages, report.archived) == (1, 3, 3)
    assert not archived.traces("lobby")
    with Reader(folder) as archive:
        (part,) = archive.slices(b"lobby")
    assert decode_slice(part.last, *part.entries()) == tuple(sent)


def test_messages_too_old_are_kept(archived: Lab, folder: Path) -> None:
    archived.send_all("lobby", 2)
    archived.aged("lobby", 100)
    archived.send("lobby", "young")
    assert clean_backlog(archived.redis, message_timeout=50, settings=archived.settings).messages == 2
    assert [number for _, number, _ in kept(folder)] == [1, 2]


def test_a_huge_channel_goes_slice_by_slice(redis: Client, folder: Path) -> None:
    lab = Lab(redis, archive=str(folder), hard_backlog=0, backlog=10)
    lab.send("lobby", "first")
    entries = [lab.redis.lindex(lab.key("lobby", "log:"), 0)] * 4999
    lab.redis.rpush(lab.key("lobby", "log:"), *entries)
    lab.redis.zadd(lab.key("lobby", "sizes"), {"lobby": 5000})
    assert clean_backlog(redis, settings=lab.settings).archived == 4990
    lab.idle("lobby", 901)
    report = clean_channels(redis, settings=lab.settings)
    assert (report.channels, report.messages, report.archived) == (1, 10, 10)
    assert [number for _, number, _ in kept(folder)] == list(range(1, 5001))


def test_large_messages_are_handed_over_a_few_at_a_time(archived: Lab, folder: Path) -> None:
    for _ in range(60):
        archived.send("lobby", "x" * 60_000)
    archived.idle("lobby", 901)
    report = clean_channels(archived.redis, settings=archived.settings)
    assert (report.channels, report.messages, report.completed) == (1, 60, True)
    assert len(kept(folder)) == 60


def test_an_empty_idle_channel_is_removed_too(archived: Lab) -> None:
    archived.send_all("lobby", 2)
    clean_backlog(archived.redis, backlog=0, settings=archived.settings)
    archived.idle("lobby", 901)
    assert clean_channels(archived.redis, settings=archived.settings).channels == 1
    assert not archived.traces("lobby")


def test_a_dry_run_hands_nothing_over(archived: Lab, folder: Path) -> None:
    archived.send_all("lobby", 5)
    assert clean_backlog(archived.redis, dry_run=True, settings=archived.settings).messages == 2
    assert not folder.exists()


class Meanwhile(Folder):
    """An archive during whose work something happens."""

    happens: Any = staticmethod(lambda: None)

    def keep(self, messages: Any, **more: Any) -> Any:
        answer = super().keep(messages, **more)
        Meanwhile.happens()
        Meanwhile.happens = staticmethod(lambda: None)
        return answer


@pytest.mark.parametrize("clean", [clean_channels, clean_backlog])
def test_what_comes_in_while_it_is_handed_over_is_not_removed(
    archived: Lab, folder: Path, monkeypatch: pytest.MonkeyPatch, clean: Any
) -> None:
    archived.send_all("lobby", 5)
    archived.idle("lobby", 901)
    monkeypatch.setattr(destinations, "Folder", Meanwhile)
    monkeypatch.setattr(Meanwhile, "happens", staticmethod(lambda: archived.send("lobby", "m6")))
    clean(archived.redis, settings=archived.settings)
    stored = [message.id for message in archived.chat.read_history("lobby", limit=None)]
    assert stored[-1] == 6
    assert {number for _, number, _ in kept(folder)} | set(stored) == {1, 2, 3, 4, 5, 6}
    if clean is clean_channels:
        assert stored == [1, 2, 3, 4, 5, 6]


def test_a_failing_archive_keeps_its_messages_and_the_rest_of_the_sweep_goes_on(
    redis: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mykeep.py").write_text(
        "kept = []\n"
        "def keep(channel, messages):\n"
        "    if channel in ('room 3', 'room 5'):\n"
        "        raise OSError('disk full')\n"
        "    kept.extend((channel, message.id) for message in messages)\n"
    )
    keeper = imported(tmp_path, monkeypatch, "mykeep")
    lab = Lab(redis, archive="mykeep:keep", backlog=3)
    for channel in ROOMS:
        lab.send_all(channel, 5)
        lab.idle(channel, 901)
    report = clean_backlog(redis, settings=lab.settings)
    assert (report.messages, report.due, report.completed) == (20, 2, False)
    failed = next(channel for channel in ("room 3", "room 5") if channel in report.error)
    assert report.error == f"channel '{failed}': not archived: OSError: disk full"
    assert "disk full" in str(report)
    report = clean_channels(redis, settings=lab.settings)
    assert (report.channels, report.due) == (10, 2)
    assert len(lab.chat.read_history("room 3", limit=None)) == 5
    assert len(keeper.kept) == 50
    sweep = read_stats(redis, settings=lab.settings).sweeps["clean_channels"]
    assert sweep.last.report["error"] == report.error
    assert (sweep.success_age, sweep.due) == (None, 2)


def test_a_damaged_channel_behind_others_that_wait_keeps_none_of_them_from_being_cleaned(
    redis: Client, folder: Path
) -> None:
    """A call reads 1,000 messages, so two channels a round; the damage is seen in the first."""
    lab = Lab(redis, archive=str(folder), shards=1, hard_backlog=0)
    for number in range(11):
        channel = f"room {number}"
        lab.fill(channel, 500)
        lab.idle(channel, 1000 - number)
    redis.delete(lab.key("room 10", "log:"))
    redis.set(lab.key("room 10", "log:"), "damaged")
    report = clean_channels(redis, settings=lab.settings)
    assert (report.channels, report.archived, report.due) == (10, 5000, 1)
    assert report.error.startswith("channel 'room 10': ")


@pytest.mark.parametrize("kind", ["a file in its place", "a file of something else in it"])
def test_a_folder_that_cannot_be_written_keeps_everything_in_redis(archived: Lab, folder: Path, kind: str) -> None:
    if kind == "a file in its place":
        folder.write_text("")
    else:
        archived.send_all("tea", 4)
        clean_backlog(archived.redis, settings=archived.settings)
        (path,) = folder.glob("*.sqlite3")
        path.write_bytes(b"a letter to a friend\n" * 100)
    archived.send_all("lobby", 5)
    report = clean_backlog(archived.redis, settings=archived.settings)
    assert (report.messages, report.archived, report.due) == (0, 0, 1)
    assert re.match(rf"channel 'lobby': not archived: \w+: .*{folder}", report.error)
    assert len(archived.chat.read_history("lobby")) == 5


@pytest.mark.parametrize("destination", ["no_such_module:keep", "json:no_such_function", "json:__doc__"])
def test_a_function_that_is_none_fails_the_run_and_removes_nothing(redis: Client, destination: str) -> None:
    lab = Lab(redis, archive=destination, on_expire=destination, backlog=3)
    lab.send_all("lobby", 5)
    with pytest.raises(SettingsError, match=r"CHAT_ARCHIVE is '.*', (which cannot be imported here: |must be a func)"):
        clean_backlog(redis, settings=lab.settings)
    with pytest.raises(SettingsError, match="CHAT_ON_EXPIRE is "):
        clean_clients(redis, settings=lab.settings)
    assert len(lab.chat.read_history("lobby")) == 5


def messages(count: int, channel: str = "lobby", last: int = 0) -> dict[str, tuple[Message, ...]]:
    """Return a hand-over of one channel."""
    ids = range((last or count) - count + 1, (last or count) + 1)
    return {channel: tuple(Message(number, time_of(10**12 + number), f"m{number}") for number in ids)}


@pytest.mark.parametrize("writable", [True, False], ids=["writable", "read only"])
def test_what_a_killed_writer_left_behind_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, writable: bool
) -> None:
    """The writer dies when half of its hand-over is in the file: pages that are no longer in its memory."""
    folder = tmp_path / "archive"
    assert not Folder(folder).keep(messages(3))
    program = (
        "import os, pathlib, signal, sqlite3, sys\n"
        "(path,) = pathlib.Path(sys.argv[1]).glob('*.sqlite3')\n"
        "db = sqlite3.connect(path, isolation_level=None)\n"
        "db.executescript('PRAGMA journal_mode=TRUNCATE; PRAGMA cache_size=1; BEGIN IMMEDIATE')\n"
        "db.execute('DELETE FROM slice')\n"
        "for number in range(1000):\n"
        "    db.execute('INSERT INTO slice VALUES (?, ?, 1, ?, ?, 1)', (b'torn', number, b'', os.urandom(2000)))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert run("-c", program, str(folder)).returncode == -signal.SIGKILL
    (path,) = folder.glob("*.sqlite3")
    torn = path.stat().st_size
    assert torn > 1_000_000
    if writable:
        assert not Folder(folder).keep(messages(2, last=5))
        assert [number for _, number, _ in kept(folder)] == [1, 2, 3, 4, 5]
    else:
        monkeypatch.setattr(os, "access", lambda *_: False)
        with pytest.raises(
            InvalidArgumentError,
            match=r"\.sqlite3 cannot be read as an archive: its writer was killed.*: copy the folder",
        ):
            kept(folder)
        assert path.stat().st_size == torn


def test_what_no_check_could_return_is_not_kept_and_the_rest_is(tmp_path: Path) -> None:
    """Something else wrote into Redis: restored, it would make each check of its channel fail."""
    deep: Any = []
    for _ in range(101):
        deep = [deep]
    strange = {
        name: (Message(1, time_of(sent_ms), body),)
        for name, sent_ms, body in (("nan", 1, float("nan")), ("deep", 1, deep), ("late", 2**43, 1), ("early", -1, 1))
    }
    failed = Folder(tmp_path).keep(strange | messages(3))
    assert failed.keys() == strange.keys()
    assert [row[:2] for row in kept(tmp_path)] == [("lobby", 1), ("lobby", 2), ("lobby", 3)]


def test_a_hand_over_of_large_messages_is_kept_in_several_slices(tmp_path: Path) -> None:
    """Whoever reads them needs memory for one at a time."""
    large = tuple(Message(number, time_of(10**12 + number), "x" * 400_000) for number in range(1, 6))
    assert not Folder(tmp_path).keep({"lobby": large})
    with Reader(tmp_path) as archive:
        parts = archive.slices(b"lobby")
    assert [(part.last, len(part.entries())) for part in parts] == [(5, 1), (4, 2), (2, 2)]
    assert [row[1] for row in kept(tmp_path)] == [1, 2, 3, 4, 5]


def test_messages_that_were_given_the_ids_of_archived_ones_are_kept_beside_them(tmp_path: Path) -> None:
    """A server fell back to a copy without the newest messages, and gave their ids again; the first had been there."""
    first = Message(1, time_of(10**12), "first")
    lost, again = (Message(2, time_of(10**12 + 1), body) for body in ("acknowledged", "of the other life"))
    for epoch, second in (("a", lost), ("a", again), ("b", again), ("b", again)):
        assert not Folder(tmp_path).keep({"lobby": (first, second)}, epoch=epoch)
    assert sorted(row[1:] for row in kept(tmp_path)) == [(1, "first")] * 3 + [
        (2, "acknowledged"), (2, "of the other life"), (2, "of the other life"),
    ]  # fmt: skip


def test_only_its_owner_may_read_the_archive(tmp_path: Path) -> None:
    Folder(tmp_path / "new" / "archive").keep(messages(3))
    (path,) = (tmp_path / "new" / "archive").glob("*.sqlite3")
    assert [found.stat().st_mode & 0o777 for found in path.parent.iterdir()] == [0o600, 0o600]  # a journal beside it
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_processes_of_one_host_keep_into_one_file(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys\n"
        "from tasks.archive.folder import Folder\n"
        "from chat._values import Message\n"
        "from chat.store.entries import time_of\n"
        "for number in range(1, 51):\n"
        "    kept = {sys.argv[2]: (Message(number, time_of(10**12), 'x' * 500),)}\n"
        "    assert not Folder(pathlib.Path(sys.argv[1])).keep(kept)\n"
    )
    folder = tmp_path / "archive"
    done: list[Any] = []
    threads = [
        threading.Thread(target=lambda name=name: done.append(run("-c", program, str(folder), name)))
        for name in ("a", "b", "c")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(one.returncode, one.stderr) for one in done] == [(0, "")] * 3
    assert len(list(folder.glob("*.sqlite3"))) == 1
    assert [(name, number) for name, number, _ in kept(folder)] == sorted(
        (name, number) for name in ("a", "b", "c") for number in range(1, 51)
    )


def test_an_archive_is_searched_by_channel_and_by_run(archived: Lab, folder: Path) -> None:
    for channel in ROOMS:
        archived.send_all(channel, 5)
    clean_backlog(archived.redis, settings=archived.settings)
    (path,) = folder.glob("*.sqlite3")
    with closing(sqlite3.connect(path)) as db:
        found = db.execute("SELECT first, last FROM slice WHERE channel = ?", (b"room 3",)).fetchall()
        runs = db.execute("SELECT DISTINCT run, epoch <> '' FROM handover").fetchall()
        by_run = "EXPLAIN QUERY PLAN SELECT * FROM slice JOIN handover ON number = handover WHERE run = ?"
        plan = [row[3] for row in db.execute(by_run, runs[0][:1])]
    assert found == [(1, 2)]
    assert (len(runs), len(runs[0][0]), runs[0][1]) == (1, 16, 1)
    assert all(step.startswith("SEARCH") for step in plan)


def test_a_sweep_makes_the_epoch_of_a_shard_that_nobody_checked(archived: Lab, folder: Path) -> None:
    archived.send_all("lobby", 5)
    clean_backlog(archived.redis, settings=archived.settings)
    with Reader(folder) as archive:
        (part,) = archive.slices(b"lobby")
    assert part.epoch == archived.check("bob", "lobby").cursor.split("-")[0]


def test_a_full_redis_is_cleaned_into_an_archive_also_in_shards_that_nobody_checked(
    archived: Lab, folder: Path
) -> None:
    for channel in ROOMS:
        archived.send_all(channel, 5)
    archived.redis.config_set("maxmemory", "1")
    try:
        report = clean_backlog(archived.redis, settings=archived.settings)
    finally:
        archived.redis.config_set("maxmemory", "0")
    assert (report.messages, report.archived, report.completed, report.error) == (24, 24, True, "")
    with Reader(folder) as archive:
        (part,) = archive.slices(b"room 7")
    assert part.epoch == archived.check("bob", "room 7").cursor.split("-")[0]


@pytest.mark.parametrize("name", ["\ud800\udc00", "\U00010000", "{x}:\n"])
def test_lone_surrogates_side_by_side_stay_what_they_are(archived: Lab, folder: Path, name: str) -> None:
    for number in range(4):
        archived.send(name, {name: [name, number]})
    clean_backlog(archived.redis, settings=archived.settings)
    assert kept(folder) == [(name, 1, {name: [name, 0]})]


def test_a_sweep_killed_after_the_hand_over_loses_nothing(server: Server, tmp_path: Path) -> None:
    with server.client() as client:
        client.flushdb()
        lab = Lab(client, archive=str(tmp_path / "archive"), backlog=3)
        lab.send_all("lobby", 5)
        program = (
            "import os, signal\n"
            "from tasks.settings import Settings\n"
            "from tasks.archive import destinations\n"
            "from tasks.cleaning import clean_backlog\n"
            "from chat.store.connect import connect\n"
            "class Deadly(destinations.Folder):\n"
            "    def keep(self, messages, **more):\n"
            "        super().keep(messages, **more)\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "destinations.Folder = Deadly\n"
            "settings = Settings.from_env()\n"
            "clean_backlog(connect(settings.redis_url), settings=settings)\n"
        )
        environment = {"REDIS_URL": server.url, "CHAT_ARCHIVE": str(tmp_path / "archive"), "CHAT_BACKLOG": "3"}
        sweep = Program("sweep", ["-c", program], environment | {"PYTHONPATH": str(ROOT)}, tmp_path).start()
        assert sweep.process
        assert sweep.process.wait(30) == -signal.SIGKILL
        assert len(lab.chat.read_history("lobby")) == 5
        assert [number for _, number, _ in kept(tmp_path / "archive")] == [1, 2]
        eventually(lambda: client.delete(lab.key("lobby", "lease:clean_backlog")) or True)
        assert clean_backlog(client, settings=lab.settings).messages == 2
        assert [number for _, number, _ in kept(tmp_path / "archive")] == [1, 2]
        client.flushdb()


def test_whatever_is_sent_and_cleaned_is_stored_or_kept(redis: Client, folder: Path) -> None:
    lab = Lab(redis, archive=str(folder), backlog=5, hard_backlog=0)
    chance, sent = random.Random(7), set()
    for _ in range(40):
        for _ in range(chance.randint(0, 60)):
            channel = chance.choice(ROOMS)
            message = lab.send(channel, chance.random())
            sent.add((channel, message.id, message.body))
        if chance.random() < 0.3:
            channel = chance.choice(ROOMS)
            if lab.redis.zscore(lab.key(channel, "updated"), channel):
                lab.idle(channel, 901)
        clean = chance.choice([clean_channels, clean_backlog, clean_clients])
        assert clean(redis, settings=lab.settings).error == ""
    stored = {(c, m.id, m.body) for c in ROOMS for m in lab.chat.read_history(c, limit=None)}
    assert {tuple(row) for row in kept(folder)} | stored == sent
    assert len(kept(folder)) + len(stored) == len(sent)


def announcing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, lines: str) -> Any:
    (tmp_path / f"{name}.py").write_text(f"told = []\ndef announce(channel, clients):\n    {lines}\n")
    return imported(tmp_path, monkeypatch, name)


def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    """Return a module of the test's, for as long as it runs."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return import_module(name)


def test_expired_clients_and_removed_channels_are_announced(
    redis: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = announcing(tmp_path, monkeypatch, "herald", "told.append((channel, clients and sorted(clients)))")
    lab = Lab(redis, on_expire="herald:announce")
    for client in ("bob", "eve", "carol"):
        lab.check(client, "lobby")
    for channel in ROOMS[:2]:
        lab.send(channel, "hi")
    lab.away("bob", "lobby", 301)
    lab.away("eve", "lobby", 301)
    lab.idle("room 1", 901)
    clean_clients(redis, dry_run=True, settings=lab.settings)
    assert module.told == []
    assert clean_clients(redis, settings=lab.settings).clients == 2
    assert clean_channels(redis, settings=lab.settings).channels == 1
    clean_backlog(redis, settings=lab.settings)
    assert module.told == [("lobby", ["bob", "eve"]), ("room 1", None)]


def test_an_announcement_that_fails_is_in_the_report_and_stops_nothing(
    redis: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announcing(tmp_path, monkeypatch, "mute", "raise ValueError('no voice')")
    lab = Lab(redis, on_expire="mute:announce")
    for channel in ROOMS:
        lab.check("bob", channel)
        lab.away("bob", channel, 301)
    report = clean_clients(redis, settings=lab.settings)
    assert (report.clients, report.completed) == (12, True)
    assert report.error.endswith("': CHAT_ON_EXPIRE: ValueError: no voice")


def test_a_client_that_checks_in_between_is_not_announced(
    redis: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = announcing(tmp_path, monkeypatch, "herald2", "told.append(channel)")
    lab = Lab(redis, on_expire="herald2:announce")
    lab.check("bob", "lobby")
    lab.away("bob", "lobby", 301)
    for node in nodes(redis):
        node.script_load(FORGET_CLIENTS.source)  # else what is named and due no more ends the sweep before it runs
    call = Removal._remove

    def late(*args: Any) -> Any:
        lab.check("bob", "lobby")
        return call(*args)

    monkeypatch.setattr(Removal, "_remove", late)
    assert clean_clients(redis, settings=lab.settings).clients == 0
    assert module.told == []


@pytest.mark.one_server
def test_the_announcement_of_the_readme_is_a_message(server: Server, lab: Lab, tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n([^`]*def announce[^`]*)```", (ROOT / "tasks/README.md").read_text())
    (tmp_path / "hooks.py").write_text(block)
    lab.check("bob", "tea")
    lab.check("erin", "tea")
    lab.away("bob", "tea", 10_000)
    settings = {"REDIS_URL": server.url, "CHAT_ON_EXPIRE": "hooks:announce"}
    done = run("-m", "celery", "-A", "tasks", "clean", "clients", "--now", folder=tmp_path, **settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert bodies(lab.check("erin", "tea")) == ["bob left"]


class Slow:
    """A function of the user's that takes its time: the clock of the sweep and the leases are moved, nobody sleeps."""

    def __init__(self, redis: Client, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.redis, self.seconds, self.now = redis, seconds, 1000.0
        self.calls: list[Any] = []
        self.then: Callable[[], None] = lambda: None
        self.limit: tuple[float, type[BaseException]] | None = None  # when the task is ended, and by what
        for module in (sweep_run, hand_over):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
        module: Any = ModuleType("slow")
        module.call = self
        monkeypatch.setitem(sys.modules, "slow", module)

    def __call__(self, channel: str, _: Any) -> None:
        self.calls.append(channel)
        self.now += self.seconds
        for lease in keys(self.redis, "*:lease:*"):
            left = self.redis.pttl(lease) - round(1000 * self.seconds)
            if left > 0:
                self.redis.pexpire(lease, left)
            else:
                self.redis.delete(lease)
        if self.limit and self.now >= self.limit[0]:
            raise self.limit[1]
        self.then()


@pytest.fixture
def many(redis: Client) -> Lab:
    """Ninety idle channels of one shard."""
    lab = Lab(redis, archive="slow:call", shards=1)
    for number in range(90):
        lab.send(f"c{number}", "x")
        lab.idle(f"c{number}", 901)
    return lab


def removed(lab: Lab) -> int:
    return 90 - int(lab.redis.zcard("chat:{0}:updated"))


def test_two_runs_with_a_slow_archive_hand_each_channel_over_once(many: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(many.redis, monkeypatch, 1.1)
    others = []

    def other() -> None:
        if slow.now >= 1000 + 31 * (len(others) + 1):  # every 31 s, as beat's
            others.append(None)
            others[-1] = clean_channels(many.redis, settings=many.settings, time_budget=40)

    slow.then = other
    report = clean_channels(many.redis, settings=many.settings)
    assert (report.channels, report.archived, report.completed) == (90, 90, True)
    assert sorted(slow.calls) == sorted({f"c{number}" for number in range(90)})
    assert [(one.channels, one.busy) for one in others] == [(0, 1)] * 3


def test_a_slow_archive_function_ends_in_time_and_what_it_took_is_removed(
    many: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(many.redis, monkeypatch, 2.7)
    for turn in range(1, 4):
        began = slow.now
        report = clean_channels(many.redis, settings=many.settings, time_budget=40)
        assert slow.now - began < 60  # the soft time limit
        assert (report.channels, report.archived, report.completed) == (15, 15, False)
        assert (removed(many), len(slow.calls)) == (15 * turn, 15 * turn)
        assert not keys(many.redis, "*:lease:*")


def test_what_was_handed_over_when_the_time_ends_is_removed_by_scripts_the_server_did_not_know(
    many: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(many.redis, monkeypatch, 2.7)
    for node in nodes(many.redis):
        node.script_flush()
    report = clean_channels(many.redis, settings=many.settings, time_budget=1)
    assert (report.channels, report.due, report.busy, report.error) == (1, 89, 0, "")
    assert len(slow.calls) == 1
    assert not keys(many.redis, "*:lease:*")


def test_no_id_is_given_twice_when_the_archive_takes_a_part_of_a_log_that_lost_its_newest(
    redis: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(_: str, messages: tuple[Message, ...]) -> None:
        if messages[0].id > 1:
            raise OSError

    monkeypatch.setitem(sys.modules, "full", SimpleNamespace(call=call))
    lab = Lab(redis, archive="full:call", hard_backlog=0)
    lab.fill("lobby", 1500)
    lab.redis.rpop(lab.key("lobby", "log:"))
    lab.idle("lobby", 901)
    assert clean_channels(redis, settings=lab.settings).archived == 1000
    assert [message.id for message in lab.chat.read_history("lobby", limit=1)] == [1499]
    assert lab.send("lobby", "new").id == 1501


def test_a_run_that_is_killed_in_a_slow_archive_function_hands_one_channel_over_again(
    many: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(many.redis, monkeypatch, 2.7)
    slow.limit = (1075, Killed)
    monkeypatch.setattr(Removal, "_release", lambda *_: None)  # nobody is left to do that
    with pytest.raises(Killed):
        clean_channels(many.redis, settings=many.settings)
    assert len(slow.calls) == removed(many) + 1


class Killed(BaseException):
    """Stands for the hard time limit."""


def test_a_channel_whose_hand_over_outlives_the_lease_stays_and_is_told(
    many: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(many.redis, monkeypatch, 31)
    report = clean_channels(many.redis, settings=many.settings)
    assert (len(slow.calls), report.archived, removed(many)) == (1, 1, 0)
    assert (report.busy, report.skipped, report.completed) == (1, False, False)
    assert report.error.startswith("shard 0: the lease was lost: it lapses 30 s after the last call to Redis, ")
    assert not keys(many.redis, "*:lease:*")


def test_a_quick_archive_function_costs_no_more_calls_than_a_folder(
    many: Lab, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    Slow(many.redis, monkeypatch, 0)
    made = []
    kept_in_a_folder = Lab(many.redis, archive=str(folder), shards=1).settings
    for settings in (kept_in_a_folder, many.settings, kept_in_a_folder):  # the first loads the scripts
        calls(many.redis)
        assert clean_channels(many.redis, settings=settings).channels == 90
        made.append(calls(many.redis)["evalsha"])
        for number in range(90):
            many.send(f"c{number}", "x")
            many.idle(f"c{number}", 901)
    assert made[1] == made[2]


def test_with_a_slow_hook_one_channel_goes_at_a_time_and_all_are_told(
    many: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(many.redis, monkeypatch, 2.7)
    settings = Lab(many.redis, on_expire="slow:call", shards=1).settings
    report = clean_channels(many.redis, settings=settings, time_budget=40)
    assert slow.now - 1000 < 60  # the soft time limit
    assert report.channels == removed(many) == len(slow.calls) == 16
    slow.seconds = 0
    assert clean_channels(many.redis, settings=settings, time_budget=40).completed
    assert len(slow.calls) == 90


class Limit(Exception):  # noqa: N818  as Celery's
    """Stands for Celery's SoftTimeLimitExceeded."""


@pytest.mark.parametrize("at", ["archive", "on_expire"])
def test_what_ends_a_run_passes_the_users_functions_and_what_is_gone_is_counted(
    many: Lab, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    slow = Slow(many.redis, monkeypatch, 2.7)
    slow.limit = (1020, Limit)
    settings = Lab(many.redis, shards=1, **{at: "slow:call"}).settings
    with pytest.raises(Limit):
        clean_channels(many.redis, settings=settings, ends=(Limit,))
    assert not keys(many.redis, "*:lease:*")
    assert removed(many) == len(slow.calls) - (at == "archive") > 0
    last = read_stats(many.redis, settings=settings).sweeps["clean_channels"].last
    assert (last.failures, last.channels, last.error) == (1, removed(many), "Limit: ")


class Unprintable(Exception):  # noqa: N818  a user's
    """Its text cannot be had."""

    def __str__(self) -> str:
        message = "no text"
        raise RuntimeError(message)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SystemExit("cannot reach the store"), "SystemExit: cannot reach the store"),
        (Unprintable(), "Unprintable: its text cannot be read"),
        (ValueError("x" * 10**6), f"ValueError: {'x' * 400}"),
    ],
    ids=["exit", "unprintable", "long"],
)
@pytest.mark.parametrize("at", ["archive", "on_expire"])
def test_whatever_a_users_function_raises_is_one_short_line_and_ends_nothing(
    many: Lab, monkeypatch: pytest.MonkeyPatch, at: str, error: BaseException, said: str
) -> None:
    def call(channel: str, _: Any) -> None:
        if channel == "c7":
            raise error

    monkeypatch.setitem(sys.modules, "raising", SimpleNamespace(call=call))
    settings = Lab(many.redis, shards=1, **{at: "raising:call"}).settings
    report = clean_channels(many.redis, settings=settings)
    assert report.channels == (89 if at == "archive" else 90)
    assert said in report.error
    assert len(report.error) < 600
    assert many.redis.hstrlen("chat:runs", "clean_channels:ended") < 2000


def test_a_function_of_the_users_does_not_keep_a_process_from_stopping_when_it_is_told_to(
    many: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_DFL)  # as the handler of a worker's process does
        sys.exit(-(256 - number))

    monkeypatch.setitem(sys.modules, "told", SimpleNamespace(call=lambda *_: signal.raise_signal(signal.SIGTERM)))
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(SystemExit):
            clean_channels(many.redis, settings=Lab(many.redis, shards=1, archive="told:call").settings)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert removed(many) == 0


def test_a_run_that_fails_with_a_text_that_is_long_or_cannot_be_had_is_recorded_in_short(
    many: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*_: Any) -> None:
        raise error

    monkeypatch.setitem(sys.modules, "slow", SimpleNamespace(call=call))
    for error, said in ((Unprintable(), "Unprintable: its text cannot be read"), (Limit("x" * 10**6), "Limit: xxx")):
        with pytest.raises(type(error)):
            clean_channels(many.redis, settings=many.settings, ends=(Limit, Unprintable))
        last = read_stats(many.redis, settings=many.settings).sweeps["clean_channels"].last
        assert last.error.startswith(said)
        assert len(last.error) < 600


def test_the_tasks_end_with_celerys_time_limit(many: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(many.redis, monkeypatch, 2.7)
    slow.limit = (1020, SoftTimeLimitExceeded)
    monkeypatch.setattr(tasks.periodic, "chat_redis", lambda: (many.redis, many.settings))
    with pytest.raises(SoftTimeLimitExceeded):
        tasks.periodic.run_sweep(clean_channels, {})


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("clean", [clean_channels, clean_backlog])
def test_looking_at_what_would_go_writes_nothing_and_the_removal_mends_lost_ids(
    archived: Lab, folder: Path, monkeypatch: pytest.MonkeyPatch, clean: Any, *, lost: bool
) -> None:
    def contents() -> dict[bytes, bytes]:
        stored = [key for key in keys(archived.redis) if b":lease:" not in key and not key.endswith(b":runs")]
        return {key: archived.redis.dump(key) for key in stored}

    def look(*args: Any) -> Any:
        seen.append(contents())
        return hand_over(*args)

    def keep(*args: Any, **more: Any) -> Any:
        seen.append(contents())
        return keep_all(*args, **more)

    seen: list[dict[bytes, bytes]] = []
    hand_over, keep_all = Removal._hand_over, HandOver.keep
    monkeypatch.setattr(Removal, "_hand_over", look)
    monkeypatch.setattr(HandOver, "keep", keep)
    archived.redis.hset(archived.key("lobby", "meta"), "epoch", "0123456789ab")
    archived.send_all("lobby", 5)
    archived.idle("lobby", 901)
    if lost:
        archived.redis.delete(archived.key("lobby", "trimmed"))
    report = clean(archived.redis, settings=archived.settings)
    assert seen[::2] == seen[1::2] != []
    expected = [1, 2, 3, 4, 5] if clean is clean_channels else [1, 2]
    assert (report.archived, report.messages, report.error) == (len(expected), len(expected), "")
    assert [int(body[1:]) for _, _, body in kept(folder)] == expected
    assert all((number > 10**12) == lost for _, number, _ in kept(folder))


@pytest.mark.parametrize("clean", [clean_channels, clean_backlog])
def test_a_channel_removed_before_it_is_looked_at_leaves_nothing(
    archived: Lab, monkeypatch: pytest.MonkeyPatch, clean: Any
) -> None:
    def late(*args: Any) -> Any:
        monkeypatch.undo()
        clean_channels(archived.redis, channel_timeout=0)
        return look(*args)

    look = Removal._hand_over
    archived.send_all("lobby", 5)
    archived.idle("lobby", 901)
    monkeypatch.setattr(Removal, "_hand_over", late)
    assert clean(archived.redis, settings=archived.settings).completed
    assert not archived.traces("lobby")


ODD = {"none": "of others", "no time": "x:1", "no json": "1700000000000:{", "no date": "9" * 30 + ":1"}


@pytest.mark.parametrize("entry", [*ODD.values(), b"1700000000000:\xff"], ids=[*ODD, "no text"])
@pytest.mark.parametrize("clean", [clean_channels, clean_backlog])
def test_an_entry_of_others_is_one_channels_error_and_the_rest_is_kept(
    archived: Lab, folder: Path, clean: Any, entry: Any
) -> None:
    for channel in ROOMS:
        archived.send_all(channel, 5)
        archived.idle(channel, 901)
    archived.redis.lset(archived.key("room 3", "log:"), 1, entry)
    report = clean(archived.redis, settings=archived.settings)
    assert report.error.startswith("channel 'room 3': not archived: ")
    assert (report.due, report.completed) == (1, False)
    each = 5 if clean is clean_channels else 2
    assert (report.messages, report.archived) == (11 * each, 11 * each)
    assert {channel for channel, *_ in kept(folder)} == {*ROOMS} - {"room 3"}
    assert archived.redis.llen(archived.key("room 3", "log:")) == 5
    assert not keys(archived.redis, "*:lease:*")


def test_a_log_whose_name_is_no_text_is_not_taken_for_another(redis: Client, folder: Path) -> None:
    lab = Lab(redis, archive=str(folder), shards=1)
    lab.send("\\xff", "mine")
    lab.idle("\\xff", 901)
    redis.rpush(b"chat:{0}:log:\xff", b"1:2")
    redis.zadd("chat:{0}:updated", {b"\xff": 1})
    redis.zadd("chat:{0}:sizes", {b"\xff": 1})
    redis.hset("chat:{0}:trimmed", b"\xff", "0")
    report = clean_channels(redis, settings=lab.settings)
    assert (report.channels, report.due) == (1, 1)
    assert kept(folder) == [("\\xff", 1, "mine")]
    assert redis.llen(b"chat:{0}:log:\xff") == 1
    assert "UnicodeDecodeError" in report.error
