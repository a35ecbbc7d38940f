"""What cleaning removes can be kept, announced, and read back."""

from __future__ import annotations

import gzip
import json
import random
import re
import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from lab import Lab, bodies
from servers import ROOT, Program, Server, eventually, run

from chat import InvalidArgumentError, SettingsError, _archive, _restore, _sweep
from chat._archive import Folder, read
from chat._restore import restore
from chat.cleaning import clean_backlog, clean_channels, clean_clients
from chat.stats import read_stats

if TYPE_CHECKING:
    from pathlib import Path

    from chat.connection import Client

ROOMS = [f"room {number}" for number in range(12)]


def kept(folder: Path) -> list[tuple[str, int, Any]]:
    """Return channel, id and body of what is in an archive."""
    rows = [row for path in Folder(folder).files() for row in read(path)]
    return sorted((row["channel"], row["id"], row["body"]) for row in rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def archived(redis: Client, folder: Path) -> Lab:
    return Lab(redis, archive=str(folder), backlog=3, hard_backlog=0)


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
    (path,) = Folder(folder).files()
    rows = list(read(path))
    assert [(row["id"], row["body"]) for row in rows] == [(message.id, message.body) for message in sent]
    assert rows[0]["sent_at"] == sent[0].sent_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert path.parent.name == f"{sent[0].sent_at:%Y-%m-%d}"
    assert path.stat().st_mode & 0o077 == 0


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

    def keep(self, shard: int, messages: Any) -> Any:
        answer = super().keep(shard, messages)
        Meanwhile.happens()
        Meanwhile.happens = staticmethod(lambda: None)
        return answer


@pytest.mark.parametrize("clean", [clean_channels, clean_backlog])
def test_what_comes_in_while_it_is_handed_over_is_not_removed(
    archived: Lab, folder: Path, monkeypatch: pytest.MonkeyPatch, clean: Any
) -> None:
    archived.send_all("lobby", 5)
    archived.idle("lobby", 901)
    monkeypatch.setattr(_archive, "Folder", Meanwhile)
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
    assert report.error == "not archived: OSError: disk full"
    assert "disk full" in str(report)
    report = clean_channels(redis, settings=lab.settings)
    assert (report.channels, report.due) == (10, 2)
    assert len(lab.chat.read_history("room 3", limit=None)) == 5
    assert len(keeper.kept) == 50
    sweep = read_stats(redis, settings=lab.settings).sweeps["clean_channels"]
    assert sweep.last.report["error"] == "not archived: OSError: disk full"
    assert (sweep.success_age, sweep.due) == (None, 2)


@pytest.mark.parametrize("kind", ["a file in its place", "a folder that is a file"])
def test_a_folder_that_cannot_be_written_keeps_everything_in_redis(archived: Lab, folder: Path, kind: str) -> None:
    sent = archived.send("lobby", "m1")
    archived.send_all("lobby", 4, start=2)
    if kind == "a file in its place":
        folder.write_text("")
    else:
        folder.mkdir()
        (folder / f"{sent.sent_at:%Y-%m-%d}").write_text("")
    report = clean_backlog(archived.redis, settings=archived.settings)
    assert (report.messages, report.archived, report.due) == (0, 0, 1)
    assert report.error.startswith("not archived: ")
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


def test_what_a_killed_writer_left_behind_is_cut_off(archived: Lab, folder: Path) -> None:
    archived.send_all("lobby", 4)
    clean_backlog(archived.redis, settings=archived.settings)
    (path,) = Folder(folder).files()
    whole = path.read_bytes()
    path.with_suffix(".length").write_text(str(len(whole)))
    path.write_bytes(whole + gzip.compress(b'{"channel": "lob')[:-5])
    assert [number for _, number, _ in kept(folder)] == [1]
    path.with_suffix(".length").write_text(str(len(whole)))
    path.write_bytes(whole + b"\x1f\x8b torn")
    archived.send_all("lobby", 1, start=5)
    clean_backlog(archived.redis, settings=archived.settings)
    assert [number for _, number, _ in kept(folder)] == [1, 2]
    with gzip.open(path) as lines:
        assert len([json.loads(line) for line in lines]) == 2


def test_a_sweep_killed_after_the_hand_over_loses_nothing(server: Server, tmp_path: Path) -> None:
    with server.client() as client:
        client.flushdb()
        lab = Lab(client, archive=str(tmp_path / "archive"), backlog=3)
        lab.send_all("lobby", 5)
        program = (
            "import os, signal\n"
            "from chat import Settings, _archive\n"
            "from chat.cleaning import clean_backlog\n"
            "from chat.connection import connect\n"
            "class Deadly(_archive.Folder):\n"
            "    def keep(self, shard, messages):\n"
            "        super().keep(shard, messages)\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "_archive.Folder = Deadly\n"
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
        assert [number for _, number, _ in kept(tmp_path / "archive")] == [1, 1, 2, 2]  # at least once
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
    assert report.error == "CHAT_ON_EXPIRE: ValueError: no voice"


def test_a_client_that_checks_in_between_is_not_announced(
    redis: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = announcing(tmp_path, monkeypatch, "herald2", "told.append(channel)")
    lab = Lab(redis, on_expire="herald2:announce")
    lab.check("bob", "lobby")
    lab.away("bob", "lobby", 301)
    call = _sweep.Sweep._call

    def late(*args: Any) -> Any:
        lab.check("bob", "lobby")
        return call(*args)

    monkeypatch.setattr(_sweep.Sweep, "_call", late)
    assert clean_clients(redis, settings=lab.settings).clients == 0
    assert module.told == []


@pytest.mark.one_server
def test_the_announcement_of_the_readme_is_a_message(server: Server, lab: Lab, tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n([^`]*def announce[^`]*)```", (ROOT / "README.md").read_text())
    (tmp_path / "hooks.py").write_text(block)
    lab.check("bob", "tea")
    lab.check("erin", "tea")
    lab.away("bob", "tea", 10_000)
    settings = {"REDIS_URL": server.url, "CHAT_ON_EXPIRE": "hooks:announce"}
    done = run("-m", "celery", "-A", "tasks", "clean", "clients", "--now", folder=tmp_path, **settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert bodies(lab.check("erin", "tea")) == ["bob left"]


def test_a_backlog_comes_back_below_what_is_stored(archived: Lab, folder: Path) -> None:
    archived.check("bob", "lobby")
    archived.send_all("lobby", 250)
    clean_backlog(archived.redis, settings=archived.settings)
    (restored,) = restore(archived.redis, folder, dry_run=True, settings=archived.settings)
    assert (restored.messages, len(archived.chat.read_history("lobby", limit=None))) == (247, 3)
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.channel, restored.first, restored.last, restored.messages, restored.left) == (
        "lobby", 1, 247, 247, 0,
    )  # fmt: skip
    check = archived.check("bob", "lobby")
    assert (check.missed, bodies(check)) == (0, [f"m{number}" for number in range(1, 251)])
    (again,) = restore(archived.redis, folder, settings=archived.settings)
    assert again.messages == 0
    assert read_stats(archived.redis, settings=archived.settings).messages == 250
    assert archived.send("lobby", "next").id == 251


def test_a_channel_that_is_gone_comes_back_with_its_ids(archived: Lab, folder: Path) -> None:
    sent = [archived.send("lobby", body) for body in ("a", "b", "c")]
    archived.idle("lobby", 901)
    clean_channels(archived.redis, settings=archived.settings)
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.first, restored.last) == (1, 3)
    assert archived.chat.read_history("lobby") == tuple(sent)
    assert clean_channels(archived.redis, settings=archived.settings).channels == 0
    assert archived.send("lobby", "d").id == 4


def test_what_does_not_join_on_is_left_and_counted(archived: Lab, folder: Path) -> None:
    archived.send_all("lobby", 5)
    clean_backlog(archived.redis, settings=archived.settings)
    archived.send_all("lobby", 3, start=6)
    unkept = Lab(archived.redis, backlog=2)
    clean_backlog(archived.redis, settings=unkept.settings)
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.messages, restored.left) == (0, 2)
    assert [message.id for message in archived.chat.read_history("lobby")] == [7, 8]


def test_a_channel_that_is_cleaned_while_it_is_restored_stays_whole(
    archived: Lab, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archived.send_all("lobby", 5)
    clean_backlog(archived.redis, settings=archived.settings)
    block = _restore._Channel._block

    def late(*args: Any) -> Any:
        clean_backlog(archived.redis, backlog=1, settings=archived.settings)
        return block(*args)

    monkeypatch.setattr(_restore._Channel, "_block", late)
    with pytest.raises(InvalidArgumentError, match="channel 'lobby' changed while it was restored: do it again"):
        restore(archived.redis, folder, settings=archived.settings)
    assert [(message.id, message.body) for message in archived.chat.read_history("lobby")] == [(5, "m5")]
    monkeypatch.undo()
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.first, restored.last, restored.left) == (1, 4, 0)
    assert [message.body for message in archived.chat.read_history("lobby")] == ["m1", "m2", "m3", "m4", "m5"]


def test_only_the_channels_and_days_that_are_asked_for_come_back(archived: Lab, folder: Path) -> None:
    for channel in ROOMS:
        archived.send_all(channel, 4)
    clean_backlog(archived.redis, settings=archived.settings)
    found = restore(archived.redis, folder, channels=["room 3"], settings=archived.settings)
    assert [restored.channel for restored in found] == ["room 3"]
    with pytest.raises(InvalidArgumentError, match=r"no archive in .* of these days"):
        restore(archived.redis, folder, days=["2011-06-01"], settings=archived.settings)


def test_no_archive_is_one_clear_error(redis: Client, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"no archive in .*, must be a folder that CHAT_ARCHIVE named"):
        restore(redis, tmp_path)


def account(lab: Lab) -> tuple[int, int, int, int]:
    """Return sent, removed, restored and stored."""
    stats = read_stats(lab.redis, settings=lab.settings)
    return stats.sent, stats.removed, stats.restored, stats.messages


def test_counters_only_rise_and_the_account_stays_right(archived: Lab, folder: Path) -> None:
    archived.send_all("lobby", 10)
    clean_backlog(archived.redis, settings=archived.settings)
    restore(archived.redis, folder, settings=archived.settings)
    assert account(archived) == (10, 7, 7, 10)
