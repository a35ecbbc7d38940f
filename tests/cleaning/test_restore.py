"""What an archive holds comes back with its ids and times, or is left: never under an id that means another message."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import resource
import shlex
import sqlite3
import struct
import subprocess
import sys
import zlib
from contextlib import closing
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from lab import Lab, bodies, keys
from proxy import LossyProxy
from redis.exceptions import ConnectionError as RedisConnectionError
from servers import clean_environment, run

from chat import ChatFullError, InvalidArgumentError
from chat._values import Message
from chat.store.connect import connect
from chat.store.entries import time_of
from chat.store.nodes import nodes
from tasks.archive import channel as restoring
from tasks.archive import folder as archive_folder
from tasks.archive.folder import Folder
from tasks.archive.restore import restore
from tasks.archive.scripts import BEGIN, FOLLOW, STORED
from tasks.cleaning import clean_backlog, clean_channels, clean_clients
from tasks.stats.figures import read_stats

if TYPE_CHECKING:
    from servers import Server

    from chat.store.nodes import Client

pytestmark = pytest.mark.on_cluster

ROOMS = [f"room {number}" for number in range(12)]


def unkept(lab: Lab, **settings: Any) -> Lab:
    """Return the same chat without an archive."""
    return Lab(lab.redis, hard_backlog=0, **settings)


def forget(lab: Lab, *channels: str) -> None:
    """Remove idle channels, the way that lab does."""
    for channel in channels:
        lab.idle(channel, 901)
    assert clean_channels(lab.redis, settings=lab.settings).channels == len(channels)


def with_gone_lobby(redis: Client, folder: Path) -> Lab:
    """Return a chat in one shard whose one channel, of three messages, went into the archive."""
    lab = Lab(redis, archive=str(folder), shards=1, hard_backlog=0)
    lab.send_all("lobby", 3)
    forget(lab, "lobby")
    return lab


def history(lab: Lab, channel: str) -> list[Any]:
    return bodies(lab.chat.read_history(channel, limit=None))


def account(lab: Lab) -> tuple[int, int, int, int]:
    """Return sent, removed, restored and stored."""
    stats = read_stats(lab.redis, settings=lab.settings)
    return stats.sent, stats.removed, stats.restored, stats.messages


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
    clean_backlog(archived.redis, settings=unkept(archived, backlog=2).settings)
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.messages, restored.left) == (0, 2)
    assert restored.reason == "the ids between are not in the archive"
    assert [message.id for message in archived.chat.read_history("lobby")] == [7, 8]


def test_a_channel_that_is_cleaned_while_it_is_restored_stays_whole(
    archived: Lab, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archived.send_all("lobby", 5)
    clean_backlog(archived.redis, settings=archived.settings)
    archived.send_all("tea", 5)
    clean_backlog(archived.redis, settings=archived.settings)
    write = restoring.ChannelRestore._write

    def late(*args: Any, **options: Any) -> Any:
        clean_backlog(archived.redis, backlog=1, settings=archived.settings)
        monkeypatch.undo()
        return write(*args, **options)

    monkeypatch.setattr(restoring.ChannelRestore, "_write", late)
    lobby, tea = restore(archived.redis, folder, settings=archived.settings)
    assert (lobby.messages, lobby.left) == (0, 2)
    assert lobby.reason == "the channel changed meanwhile, or a key of it was lost: do it again"
    assert (tea.first, tea.last) == (1, 4)
    assert [(message.id, message.body) for message in archived.chat.read_history("lobby")] == [(5, "m5")]
    restored, _ = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.first, restored.last, restored.left) == (1, 4, 0)
    assert [message.body for message in archived.chat.read_history("lobby")] == ["m1", "m2", "m3", "m4", "m5"]


def test_only_the_channels_and_days_that_are_asked_for_come_back(archived: Lab, folder: Path) -> None:
    for channel in ROOMS:
        archived.send_all(channel, 4)
    clean_backlog(archived.redis, settings=archived.settings)
    found = restore(archived.redis, folder, channels=["room 3"], settings=archived.settings)
    assert [restored.channel for restored in found] == ["room 3"]
    day = archived.chat.read_history("room 3")[0].sent_at.date()
    (restored,) = restore(archived.redis, folder, channels=["room 5"], days=[day], settings=archived.settings)
    assert (restored.first, restored.last) == (1, 1)
    (restored,) = restore(
        archived.redis, folder, channels=["room 6"], days=[date(2011, 6, 1)], settings=archived.settings
    )
    assert restored == restoring.Restored("room 6")
    with pytest.raises(InvalidArgumentError, match=r"no archive in .* of these days"):
        restore(archived.redis, folder, days=[date(2011, 6, 1)], settings=archived.settings)


def test_no_archive_is_one_clear_error(redis: Client, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"no archive in .*, must be a folder that CHAT_ARCHIVE named"):
        restore(redis, tmp_path)


@pytest.mark.parametrize("noted", [True, False], ids=["noted", "of a version that noted no such ids"])
def test_a_channel_whose_later_ids_are_not_in_the_archive_stays_gone(
    archived: Lab, folder: Path, *, noted: bool
) -> None:
    archived.send_all("lobby", 6)
    clean_backlog(archived.redis, settings=archived.settings)
    forget(unkept(archived), "lobby")
    if not noted:
        archived.redis.hdel(archived.key("lobby", "meta"), "unkept")
    for dry_run in (True, False):
        (restored,) = restore(archived.redis, folder, dry_run=dry_run, settings=archived.settings)
        assert (restored.messages, restored.left) == (0, 3)
        assert restored.reason == "later ids of the channel are not in the archive"
        assert not archived.traces("lobby")
    assert archived.send("lobby", "m7").id == 7
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.messages, restored.left, history(archived, "lobby")) == (0, 3, ["m7"])


def test_later_ids_that_were_trimmed_or_lost_count_as_given_too(archived: Lab, folder: Path) -> None:
    for channel in ("trimmed", "lost", "lost and checked", "trimmed and archived"):
        archived.send_all(channel, 6)
    clean_backlog(archived.redis, settings=archived.settings)
    archived.redis.delete(archived.key("lost", "log:"), archived.key("lost and checked", "log:"))
    archived.check("bob", "lost and checked")
    archived.chat.leave_channel("bob", "lost and checked")
    clean_backlog(archived.redis, backlog=0, settings=unkept(archived).settings)
    forget(archived, "trimmed", "lost", "lost and checked")
    found = restore(
        archived.redis, folder, channels=["trimmed", "lost", "lost and checked"], settings=archived.settings
    )
    assert [(restored.messages, restored.left) for restored in found] == [(0, 3)] * 3


@pytest.mark.parametrize("lost", [["log:"], ["log:", "sizes"], ["log:", "sizes", "trimmed"]], ids=len)
def test_the_log_that_was_lost_and_removed_counts_as_given_too(archived: Lab, folder: Path, lost: list[str]) -> None:
    archived.send_all("lobby", 6)
    clean_backlog(archived.redis, settings=archived.settings)
    archived.redis.delete(*(archived.key("lobby", name) for name in lost))
    forget(archived, "lobby")
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.messages, restored.left) == (0, 3)
    again = archived.send("lobby", "m7").id
    assert again == 7 if lost == ["log:"] else again > 10**12


def test_a_channel_that_lost_its_log_gets_nothing_until_its_ids_are_right_again(archived: Lab, folder: Path) -> None:
    archived.send_all("lobby", 6)
    clean_backlog(archived.redis, settings=archived.settings)
    archived.redis.delete(archived.key("lobby", "log:"))
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.left, restored.reason[:28]) == (3, "the channel changed meanwhil")
    assert (archived.send("lobby", "m7").id, history(archived, "lobby")) == (7, ["m7"])


@pytest.mark.parametrize("left", ["messages", "a client", "a time"])
def test_a_channel_that_lost_its_ids_gets_nothing(archived: Lab, folder: Path, left: str) -> None:
    archived.send_all("lobby", 3)
    clean_backlog(archived.redis, backlog=0, settings=archived.settings)
    if left == "messages":
        archived.send_all("lobby", 3, start=4)
    elif left == "a client":
        archived.check("bob", "lobby")
        forget(archived, "lobby")
    archived.redis.delete(archived.key("lobby", "trimmed"))
    before = archived.traces("lobby")
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.messages, restored.left, archived.traces("lobby")) == (0, 3, before)


def test_messages_younger_than_those_they_would_come_before_are_left(archived: Lab, folder: Path) -> None:
    """A log is sorted by time: these are of a copy of this chat that went on by itself."""
    archived.send_all("lobby", 6)
    epoch = archived.check("bob", "lobby").cursor.split("-")[0]
    clean_backlog(archived.redis, settings=unkept(archived, backlog=3).settings)
    young = tuple(Message(number, time_of(2 * 10**12), "another") for number in (1, 2, 3))
    assert not Folder(folder).keep({"lobby": young}, epoch=epoch)
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.messages, restored.left, history(archived, "lobby")) == (0, 3, ["m4", "m5", "m6"])


def test_ids_of_a_later_life_count_as_given_too(archived: Lab, folder: Path) -> None:
    archived.send_all("lobby", 3)
    forget(archived, "lobby")
    archived.send_all("lobby", 2, start=4)
    forget(unkept(archived), "lobby")
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.messages, restored.left) == (0, 3)
    assert archived.send("lobby", "m6").id == 6


def test_other_channels_of_a_shard_let_none_come_back_whose_later_ids_are_not_in_the_archive(
    redis: Client, folder: Path
) -> None:
    lab = Lab(redis, archive=str(folder), shards=1, backlog=3, hard_backlog=0)
    lab.send_all("lobby", 6)
    clean_backlog(redis, settings=lab.settings)
    clean_backlog(redis, backlog=0, settings=unkept(lab, shards=1).settings)
    lab.send_all("short", 1)
    clean_backlog(redis, backlog=0, settings=unkept(lab, shards=1).settings)
    forget(lab, "lobby", "short")
    (restored,) = restore(redis, folder, settings=lab.settings)
    assert (restored.channel, restored.messages, restored.left) == ("lobby", 0, 3)


def test_other_channels_of_a_shard_do_not_keep_one_from_coming_back(redis: Client, folder: Path) -> None:
    lab = Lab(redis, archive=str(folder), shards=1, backlog=3, hard_backlog=4)
    lab.send_all("emptied", 50)
    clean_backlog(redis, backlog=0, settings=lab.settings)
    lab.send_all("long", 50)
    lab.check("bob", "long")
    lab.send_all("lobby", 3)
    forget(lab, "long", "lobby")
    clean_clients(redis, client_timeout=0, settings=lab.settings)
    (restored,) = restore(redis, folder, channels=["lobby"], settings=lab.settings)
    assert (restored.first, restored.last, lab.send("lobby", "m4").id) == (1, 3, 4)


def test_without_the_newest_day_a_channel_that_is_gone_stays_gone(archived: Lab, folder: Path) -> None:
    for number in range(1, 5):
        sent_at = time_of(10**12 + number // 3 * 10**9)
        assert not Folder(folder).keep({"lobby": (Message(number, sent_at, f"m{number}"),)}, epoch="0" * 12)
    (restored,) = restore(archived.redis, folder, days=[date(2001, 9, 9)], settings=archived.settings)
    assert (restored.messages, restored.left) == (0, 2)
    assert restored.reason == "later ids of the channel were not asked for"
    assert not archived.traces("lobby")
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.first, restored.last) == (1, 4)


def test_a_channel_that_came_back_by_itself_gets_only_what_joins_on(archived: Lab, folder: Path) -> None:
    archived.send_all("lobby", 5)
    forget(archived, "lobby")
    archived.send_all("lobby", 2, start=6)
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.first, restored.last, restored.left) == (1, 5, 0)
    assert history(archived, "lobby") == [f"m{number}" for number in range(1, 8)]


def test_archived_messages_that_are_stored_are_compared(archived: Lab, folder: Path) -> None:
    archived.send_all("lobby", 250)
    clean_backlog(archived.redis, settings=archived.settings)
    restore(archived.redis, folder, settings=archived.settings)
    for dry_run in (True, False):
        (restored,) = restore(archived.redis, folder, dry_run=dry_run, settings=archived.settings)
        assert (restored.messages, restored.stored, restored.left) == (0, 247, 0)
    clean_backlog(archived.redis, backlog=150, settings=unkept(archived).settings)
    log = archived.key("lobby", "log:")
    archived.redis.lset(log, 0, archived.redis.lindex(log, 0)[:-1] + b' "')
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.messages, restored.stored, restored.left) == (0, 100, 147)
    assert restored.reason == "their ids mean other messages here"
    assert len(history(archived, "lobby")) == 150


def test_archived_messages_above_the_log_are_left(archived: Lab, folder: Path) -> None:
    """Redis came back from a backup: it has not yet given the ids of what it removed after that."""
    archived.send_all("lobby", 6)
    epoch = archived.check("bob", "lobby").cursor.split("-")[0]
    clean_backlog(archived.redis, settings=archived.settings)
    later = tuple(Message(number, time_of(2 * 10**12), f"later m{number}") for number in (7, 8))
    assert not Folder(folder).keep({"lobby": later}, epoch=epoch)
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.first, restored.last, restored.left) == (1, 3, 2)
    assert history(archived, "lobby") == [f"m{number}" for number in range(1, 7)]


def test_what_was_kept_before_redis_was_emptied_comes_back_only_where_no_channel_is(
    archived: Lab, folder: Path
) -> None:
    for channel in ("lobby", "tea"):
        archived.send_all(channel, 6)
        archived.check("bob", channel)
    clean_backlog(archived.redis, settings=archived.settings)
    archived.redis.flushdb()
    for number in range(8):
        archived.send("lobby", f"new {number}")
    archived.check("bob", "lobby")
    clean_backlog(archived.redis, settings=unkept(archived, backlog=5).settings)
    lobby, tea = restore(archived.redis, folder, settings=archived.settings)
    assert (lobby.messages, lobby.left, lobby.reason) == (0, 3, "their ids mean other messages here")
    assert (tea.messages, tea.first, tea.last) == (3, 1, 3)
    assert history(archived, "lobby") == [f"new {number}" for number in range(3, 8)]
    assert archived.send("tea", "m4").id == 4
    _, tea = restore(archived.redis, folder, settings=archived.settings)
    assert (tea.messages, tea.stored, tea.left) == (0, 3, 0)


def test_what_was_kept_before_redis_was_emptied_leaves_ids_that_were_given_since(archived: Lab, folder: Path) -> None:
    """The channel that is gone had them, and nothing kept what they meant."""
    archived.send_all("lobby", 5)
    forget(archived, "lobby")
    archived.redis.flushdb()
    archived.check("bob", "lobby")
    archived.chat.leave_channel("bob", "lobby")
    archived.send_all("lobby", 2, start=100)
    forget(unkept(archived), "lobby")
    for dry_run in (True, False):
        (restored,) = restore(archived.redis, folder, dry_run=dry_run, settings=archived.settings)
        assert (restored.first, restored.last, restored.left) == (3, 5, 2)
        assert restored.reason == "their ids mean other messages here"
    assert history(archived, "lobby") == ["m3", "m4", "m5"]
    (again,) = restore(archived.redis, folder, settings=archived.settings)
    assert (again.messages, again.stored, again.left) == (0, 3, 2)


@pytest.mark.parametrize("of", ["the version before", "another history"])
def test_a_channel_does_not_begin_below_messages_that_were_sent_later(archived: Lab, folder: Path, of: str) -> None:
    """A worker of the version before, which notes no epoch, cleaned beside the new ones: it kept the ids above."""
    archived.send_all("lobby", 3)
    forget(archived, "lobby")
    archived.send_all("lobby", 3, start=4)
    if of == "the version before":
        lines_of(archived, "lobby", folder, 3)
    else:
        Folder(folder).keep({"lobby": archived.chat.read_history("lobby")}, epoch="0" * 12)
    archived.redis.delete(*(archived.key("lobby", name) for name in ("log:", "updated", "sizes", "heads", "trimmed")))
    for dry_run in (True, False):
        (restored,) = restore(archived.redis, folder, dry_run=dry_run, settings=archived.settings)
        assert (restored.messages, restored.left) == (0, 6)
        assert restored.reason == "later ids of the channel are not in the archive"
        assert not archived.traces("lobby")


@pytest.mark.parametrize("more", [1, 150])
def test_after_a_snapshot_came_back_what_both_histories_have_joins_on(archived: Lab, folder: Path, more: int) -> None:
    archived.check("bob", "lobby")
    archived.send_all("lobby", 10)
    clean_backlog(archived.redis, settings=archived.settings)
    snapshot = {key: node.dump(key) for node in nodes(archived.redis) for key in node.keys("chat:*")}
    archived.send_all("lobby", 9 + more, start=11)
    clean_backlog(archived.redis, settings=archived.settings)
    for node in nodes(archived.redis):
        node.flushall()
    for key, value in snapshot.items():
        archived.redis.restore(key, 0, value)
    again = [archived.send("lobby", f"again {number}").body for number in range(more)]
    for dry_run in (True, False):
        (restored,) = restore(archived.redis, folder, dry_run=dry_run, settings=archived.settings)
        assert (restored.first, restored.last, restored.stored, restored.left) == (1, 7, 3, 6 + more)
        assert restored.reason == "their ids mean other messages here"
    assert history(archived, "lobby") == [f"m{number}" for number in range(1, 11)] + again


def test_after_a_snapshot_came_back_nothing_joins_on_below_messages_that_are_others(
    archived: Lab, folder: Path
) -> None:
    """Ids that went without an archive since mean others too, and nothing tells which did."""
    archived.check("bob", "lobby")
    archived.send_all("lobby", 4)
    snapshot = {key: node.dump(key) for node in nodes(archived.redis) for key in node.keys("chat:*")}
    archived.send_all("lobby", 9, start=5)
    clean_backlog(archived.redis, settings=archived.settings)
    for node in nodes(archived.redis):
        node.flushall()
    for key, value in snapshot.items():
        archived.redis.restore(key, 0, value)
    again = [archived.send("lobby", f"again {number}").body for number in range(5)]
    clean_backlog(archived.redis, backlog=2, settings=unkept(archived).settings)
    for dry_run in (True, False):
        (restored,) = restore(archived.redis, folder, dry_run=dry_run, settings=archived.settings)
        assert (restored.messages, restored.stored, restored.left) == (0, 0, 10)
    assert history(archived, "lobby") == again[-2:]


def test_a_dry_run_says_what_it_cannot_know_of_several_histories(archived: Lab, folder: Path) -> None:
    archived.send_all("lobby", 4)
    lines_of(archived, "lobby", folder, 3)
    forget(archived, "lobby")
    (dry,) = restore(archived.redis, folder, dry_run=True, settings=archived.settings)
    assert (dry.messages, dry.left) == (4, 3)
    assert dry.reason == "only a real run can tell whether these ids follow the restored ones"
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.messages, restored.stored, restored.left) == (4, 3, 0)


def test_a_restore_that_was_cut_off_goes_on_when_it_is_repeated(
    archived: Lab, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even of what was kept before Redis was emptied: what is stored vouches for what joins on to it."""
    archived.send_all("lobby", 500)
    forget(archived, "lobby")
    archived.redis.flushdb()
    calls = []

    def failing(*call: Any) -> Any:
        calls.append(call)
        if len(calls) == 2:
            raise RedisConnectionError
        return FOLLOW(*call)

    monkeypatch.setattr(restoring, "FOLLOW", failing)
    with pytest.raises(RedisConnectionError):
        restore(archived.redis, folder, settings=archived.settings)
    archived.check("bob", "lobby")
    assert len(history(archived, "lobby")) == 200
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.first, restored.last, restored.stored, restored.left) == (1, 300, 200, 0)
    assert history(archived, "lobby") == [f"m{number}" for number in range(1, 501)]


def test_a_channel_that_is_removed_while_it_is_restored_does_not_begin_below_its_ids(
    archived: Lab, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archived.send_all("lobby", 250)
    forget(archived, "lobby")
    calls = []

    def late(*call: Any) -> Any:
        calls.append(call)
        if len(calls) == 1:
            forget(archived, "lobby")
        return FOLLOW(*call)

    monkeypatch.setattr(restoring, "FOLLOW", late)
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.messages, restored.left, archived.send("lobby", "m251").id) == (100, 150, 251)


def test_what_was_kept_before_redis_was_emptied_leaves_ids_that_are_given_while_it_is_restored(
    redis: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = with_gone_lobby(redis, folder)
    redis.flushdb()

    def late(*call: Any) -> Any:
        lab.send_all("other", 2)
        forget(unkept(lab, shards=1), "other")
        return BEGIN(*call)

    monkeypatch.setattr(restoring, "BEGIN", late)
    (restored,) = restore(redis, folder, settings=lab.settings)
    assert (restored.messages, restored.left, lab.traces("lobby")) == (0, 3, {})


def come_and_go(lab: Lab) -> None:
    """Let a channel that is gone come back, and go again into the archive."""
    lab.send_all("lobby", 2, start=4)
    forget(lab, "lobby")


def test_a_gone_channel_does_not_begin_below_ids_that_were_archived_while_it_is_restored(
    redis: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = with_gone_lobby(redis, folder)

    def late(*call: Any) -> Any:
        come_and_go(lab)
        return BEGIN(*call)

    with monkeypatch.context() as patched:
        patched.setattr(restoring, "BEGIN", late)
        (restored,) = restore(redis, folder, settings=lab.settings)
    assert (restored.messages, restored.left, lab.traces("lobby")) == (0, 3, {})
    assert restored.reason == restoring.CHANGED
    (again,) = restore(redis, folder, settings=lab.settings)
    assert (again.first, again.last, lab.send("lobby", "m6").id) == (1, 5, 6)


def test_a_gone_channel_comes_back_with_what_was_archived_after_the_archive_was_opened(
    redis: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = with_gone_lobby(redis, folder)

    def late(*call: Any) -> Any:
        monkeypatch.setattr(archive_folder, "gethostname", lambda: "another")
        come_and_go(lab)
        return STORED(*call)

    monkeypatch.setattr(restoring, "STORED", late)
    (restored,) = restore(redis, folder, settings=lab.settings)
    assert (restored.first, restored.last, lab.send("lobby", "m6").id) == (1, 5, 6)


def test_what_came_back_after_redis_was_emptied_is_known_whatever_other_channels_were_given(
    redis: Client, folder: Path
) -> None:
    lab = with_gone_lobby(redis, folder)
    redis.flushdb()
    restore(redis, folder, settings=lab.settings)
    lab.send_all("other", 5)
    forget(unkept(lab, shards=1), "other")
    (restored,) = restore(redis, folder, settings=lab.settings)
    assert (restored.messages, restored.stored, restored.left) == (0, 3, 0)


@pytest.mark.one_server
@pytest.mark.parametrize("gone", [True, False], ids=["gone", "living"])
def test_a_lost_reply_is_no_change_and_the_rest_comes_back(
    server: Server, archived: Lab, folder: Path, *, gone: bool
) -> None:
    for channel in ROOMS[:3]:
        archived.send_all(channel, 250)
    clean_backlog(archived.redis, settings=archived.settings)
    if gone:
        forget(archived, *ROOMS[:3])
    proxy = LossyProxy(server.port)
    losing = connect(f"redis://127.0.0.1:{proxy.port}/0")
    write = restoring.ChannelRestore._write

    def unlucky(*args: Any, **options: Any) -> Any:
        proxy.lose = 1
        return write(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restoring.ChannelRestore, "_write", unlucky)
        found = restore(losing, folder, settings=archived.settings)
    losing.close()
    proxy.close()
    assert proxy.lost >= 9
    assert [(one.messages, one.left) for one in found] == [(250 if gone else 247, 0)] * 3
    for channel in ROOMS[:3]:
        assert history(archived, channel) == [f"m{number}" for number in range(1, 251)]
    assert account(archived)[3] == 750


def test_counters_only_rise_and_the_account_stays_right(archived: Lab, folder: Path) -> None:
    archived.send_all("lobby", 10)
    seen = [account(archived)]
    clean_backlog(archived.redis, settings=archived.settings)
    seen.append(account(archived))
    restore(archived.redis, folder, settings=archived.settings)
    seen.append(account(archived))
    forget(archived, "lobby")
    seen.append(account(archived))
    restore(archived.redis, folder, settings=archived.settings)
    seen.append(account(archived))
    assert seen == [(10, 0, 0, 10), (10, 7, 0, 3), (10, 7, 7, 10), (10, 17, 7, 0), (10, 17, 17, 10)]


@pytest.mark.parametrize("wrong", ["sent", "removed", "restored"])
def test_an_account_that_was_wrong_is_put_right_without_taking_anything_back(archived: Lab, wrong: str) -> None:
    archived.send_all("lobby", 5)
    archived.redis.hincrby(archived.key("lobby", "meta"), wrong, 9)
    before = account(archived)
    forget(archived, "lobby")
    after = account(archived)
    assert after[3] == 0
    assert all(new >= old for new, old in zip(after[:3], before[:3], strict=True))
    archived.send_all("lobby", 2)
    assert account(archived)[3] == 2


def test_a_full_redis_is_said_and_what_fitted_in_stays(archived: Lab, folder: Path) -> None:
    archived.send_all("lobby", 250)
    clean_backlog(archived.redis, settings=archived.settings)
    for node in nodes(archived.redis):
        node.config_set("maxmemory", "1")
    try:
        with pytest.raises(ChatFullError, match=r"^Redis is out of memory, what fitted in was restored: "):
            restore(archived.redis, folder, settings=archived.settings)
    finally:
        for node in nodes(archived.redis):
            node.config_set("maxmemory", "0")
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.messages, restored.left) == (247, 0)


def test_large_messages_come_back_about_a_megabyte_a_call(
    archived: Lab, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(60):
        archived.send("lobby", "x" * 60_000)
    forget(archived, "lobby")
    sizes = []

    def weighed(script: Any, client: Any, its_keys: Any, args: Any) -> Any:
        sizes.append(sum(len(entry) for entry in args[4:]))
        return script(client, its_keys, args)

    monkeypatch.setattr(restoring, "BEGIN", partial(weighed, BEGIN))
    monkeypatch.setattr(restoring, "FOLLOW", partial(weighed, FOLLOW))
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.messages, max(sizes) <= 1_000_000) == (60, True)


@pytest.mark.parametrize("name", ["\ud800\udc00", "\U00010000"])
def test_lone_surrogates_side_by_side_come_back_as_they_were(archived: Lab, folder: Path, name: str) -> None:
    sent = [archived.send(name, [name, number]) for number in range(5)]
    assert clean_channels(archived.redis, channel_timeout=0, settings=archived.settings).archived == 5
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.channel, restored.messages) == (name, 5)
    assert archived.chat.read_history(name) == tuple(sent)


def test_a_read_only_archive_is_read_and_not_written(
    archived: Lab, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archived.send_all("lobby", 5)
    clean_backlog(archived.redis, settings=archived.settings)

    def state() -> list[Any]:
        found = [path.stat() for path in (folder, *sorted(folder.iterdir()))]
        return [(one.st_mtime_ns, one.st_size, one.st_ino) for one in found]

    before = state()
    restore(archived.redis, folder, dry_run=True, settings=archived.settings)
    monkeypatch.setattr(os, "access", lambda *_: False)
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.messages, state()) == (2, before)


def spoiled(path: Path, how: str) -> None:
    """Make an archive of one slice, of channel lobby, something that nobody of ours wrote."""
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
        return
    if how == "foreign":
        path.write_bytes(b"a letter to a friend\n" * 500)
        return
    statements = {
        "a view": ["CREATE VIEW more AS SELECT 1"],
        "another table": ["DROP TABLE slice", "CREATE TABLE slice (channel BLOB)"],
        "a later version": ["PRAGMA user_version = 2"],
        "text for a number": ["UPDATE slice SET last = 'many'"],
        "no channel": ["UPDATE slice SET channel = NULL"],
        "a name too long": ["UPDATE slice SET channel = zeroblob(10000)"],
        "a name that is no text": ["UPDATE slice SET channel = x'ff'"],
        "ids below 1": ["UPDATE slice SET last = 1"],
        "an id too large": ["UPDATE slice SET last = 9007199254740992"],
        "no zlib": ["UPDATE slice SET entries = x'00'"],
        "too large": ["UPDATE slice SET entries = zeroblob(90000000)"],
        "half a slice": ["UPDATE slice SET entries = substr(entries, 1, length(entries) - 5)"],
    }
    entries = {
        "no JSON": b"1:{",
        "not a number": b"1:NaN",
        "a time of its own": b"x:1",
        "far in the future": b"99999999999999999:1",
        "before 1970": b"-5:1",
        "nested too deep": b"1:" + b"[" * 101 + b"]" * 101,
        "nested beyond all stacks": b"1:" + b"[" * 200_000,
        "endless digits": b"1:" + b"9" * 10_000,
        "a bomb": b"1:" + b'"' + b"x" * 200_000_000 + b'"',
        "a bomb of lines": b"1:0\n" * 5_000_000 + b"1:0",
        "a long line after others": b"1:0\n1:" + b'"' + b"x" * 3_000_000 + b'"',
    }
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements.get(how, []):
            db.execute(statement)
        if how in entries:
            lines = entries[how].count(b"\n") + 3
            db.execute("UPDATE slice SET first = last, last = ?, entries = ?", (lines, zlib.compress(entries[how])))


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "how",
    [
        "truncated", "foreign", "a view", "another table", "a later version", "text for a number", "no channel",
        "a name too long", "a name that is no text", "ids below 1", "an id too large", "no zlib", "half a slice",
        "too large", "no JSON", "not a number", "a time of its own", "far in the future", "before 1970",
        "nested too deep", "nested beyond all stacks", "endless digits", "a bomb",
        "a bomb of lines", "a long line after others",
    ],
)  # fmt: skip
def test_an_archive_that_nobody_of_ours_wrote_is_one_clear_error(archived: Lab, folder: Path, how: str) -> None:
    archived.send_all("lobby", 6)
    clean_backlog(archived.redis, settings=archived.settings)
    (path,) = folder.glob("*.sqlite3")
    spoiled(path, how)
    reason = "string or blob too big" if how == "too large" else r"[^\n]*"
    with pytest.raises(InvalidArgumentError, match=rf"^.*\.sqlite3 cannot be read as an archive: {reason}$"):
        restore(archived.redis, folder, settings=archived.settings)
    assert history(archived, "lobby") == ["m4", "m5", "m6"]
    assert {key for key in keys(archived.redis) if b":log:" in key} == {archived.key("lobby", "log:").encode()}


@pytest.mark.one_server
def test_more_files_than_a_process_may_open_are_read(
    archived: Lab, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod has a host name of its own, and each host a file."""
    archived.send_all("lobby", 150)
    sent = archived.chat.read_history("lobby", limit=None)
    for message in sent:
        monkeypatch.setattr(archive_folder, "gethostname", lambda message=message: f"pod-{message.id}")
        assert not Folder(folder).keep({"lobby": (message,)}, epoch="0" * 12)
    archived.redis.flushdb()
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 130, allowed[1]))
    try:
        (restored,) = restore(archived.redis, folder, settings=archived.settings)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, allowed)
    assert (restored.first, restored.last, restored.left) == (1, 150, 0)
    assert archived.chat.read_history("lobby", limit=None) == sent


def super_journal(path: Path, victim: Path) -> bytes:
    """Return a journal whose transaction also wrote to another database: SQLite deletes the journal it names."""
    magic, page, name = bytes.fromhex("d9d505f920a163d7"), 4096, str(victim).encode()
    pages, locked = path.stat().st_size // page, 0x40000000 // page + 1
    head = (magic + struct.pack(">IIIII", 0, 1, pages, 512, page)).ljust(512, b"\0")
    return head + struct.pack(">I", locked) + name + struct.pack(">II", len(name), sum(name)) + magic


@pytest.mark.one_server
@pytest.mark.parametrize("how", ["names a file", "the journal is a link", "the archive is a link"])
@pytest.mark.parametrize("dry_run", [True, False])
def test_reading_an_archive_neither_deletes_nor_changes_a_file_elsewhere(
    archived: Lab, folder: Path, tmp_path: Path, how: str, *, dry_run: bool
) -> None:
    archived.send_all("lobby", 6)
    clean_backlog(archived.redis, settings=archived.settings)
    (path,) = folder.glob("*.sqlite3")
    journal, victim = path.with_name(f"{path.name}-journal"), tmp_path / "victim"
    victim.write_text("precious")
    if how == "names a file":
        journal.write_bytes(super_journal(path, victim))
    else:
        link = journal if how == "the journal is a link" else path
        victim.write_bytes(link.read_bytes())
        link.unlink()
        link.symlink_to(victim)
    before = victim.read_bytes()
    with pytest.raises(
        InvalidArgumentError, match=r"\.sqlite3 cannot be read as an archive: .*(another|no regular) file"
    ):
        restore(archived.redis, folder, dry_run=dry_run, settings=archived.settings)
    assert victim.read_bytes() == before
    assert history(archived, "lobby") == ["m4", "m5", "m6"]


@pytest.mark.one_server
def test_a_message_of_many_megabytes_comes_back(archived: Lab, folder: Path) -> None:
    """What bounds a slice of several messages does not bound a single one."""
    lab = Lab(archived.redis, archive=str(folder), max_message_bytes=8_000_000)
    lab.send("lobby", "x" * 5_000_000)
    forget(archived, "lobby")
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.messages, history(archived, "lobby")) == (1, ["x" * 5_000_000])


def lines_of(lab: Lab, channel: str, folder: Path, count: int) -> Path:
    """Write an archive of the oldest messages of a channel as version 1.0.0 did."""
    rows = [
        {
            "channel": channel,
            "id": message.id,
            "sent_at": message.sent_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "body": message.body,
        }
        for message in lab.chat.read_history(channel, limit=None)[:count]
    ]
    path = folder / "2026-11-24" / "shard-00007.jsonl.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(gzip.compress(json.dumps(row).encode() + b"\n") for row in rows))
    return path


@pytest.mark.parametrize("torn", [True, False], ids=["torn", "whole"])
def test_an_archive_of_the_version_before_comes_back_where_no_channel_is(
    archived: Lab, folder: Path, *, torn: bool
) -> None:
    """It did not note the epoch, so nothing says whether its ids mean the same messages as those of a channel."""
    sent = [archived.send("lobby", {"é": number}) for number in range(3)]
    path = lines_of(archived, "lobby", folder, 3)
    if torn:
        path.with_suffix(".length").write_text(str(path.stat().st_size))
        path.write_bytes(path.read_bytes() + b"\x1f\x8b torn")
    clean_backlog(archived.redis, backlog=0, settings=unkept(archived).settings)
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.left, restored.reason) == (3, "their ids mean other messages here")
    archived.redis.flushdb()
    (restored,) = restore(archived.redis, folder, settings=archived.settings)
    assert (restored.first, restored.last, archived.chat.read_history("lobby")) == (1, 3, tuple(sent))


@pytest.mark.one_server
@pytest.mark.parametrize(
    "content",
    [
        b"", b"no gzip", gzip.compress(b"{}"), gzip.compress(b"{"), gzip.compress(b"[1]"), gzip.compress(b"\xff"),
        gzip.compress(b'{"channel": 1, "id": 1, "sent_at": "2026-11-24T00:00:00Z", "body": 1}'),
        gzip.compress(b'{"channel": "a", "id": 1e300, "sent_at": "2026-11-24T00:00:00Z", "body": 1}'),
        gzip.compress(b'{"channel": "a", "id": 1, "sent_at": "today", "body": 1}'), gzip.compress(b"[" * 200_000),
        gzip.compress(b'{"channel": "a", "id": 1, "sent_at": "2026-11-24T00:00:00Z", "body": 1}')[:-9],
    ],
    ids=["empty", "no gzip", "no row", "half", "list", "no text", "channel", "id", "time", "deep", "torn"],
)  # fmt: skip
def test_damaged_lines_of_the_version_before_are_one_clear_error(archived: Lab, folder: Path, content: bytes) -> None:
    archived.send("lobby", "hi")
    path = lines_of(archived, "lobby", folder, 1)
    path.write_bytes(content)
    if not content:
        assert restore(archived.redis, folder, settings=archived.settings) == []
        return
    with pytest.raises(InvalidArgumentError, match=r"^.*\.jsonl.gz cannot be read as an archive: [^\n]*$"):
        restore(archived.redis, folder, settings=archived.settings)


@pytest.mark.one_server
@pytest.mark.parametrize("how", ["truncated", "foreign", "missing", "a file", "lines of the version before, torn"])
def test_an_archive_that_cannot_be_read_is_one_line_and_bad_input(
    server: Server, archived: Lab, folder: Path, how: str
) -> None:
    archived.send_all("lobby", 6)
    if how in ("truncated", "foreign"):
        clean_backlog(archived.redis, settings=archived.settings)
        spoiled(next(folder.glob("*.sqlite3")), how)
    elif how == "a file":
        folder.write_text("")
    elif how != "missing":
        path = lines_of(archived, "lobby", folder, 3)
        path.write_bytes(path.read_bytes()[:-5])
    done = run("-m", "celery", "-A", "tasks", "restore", str(folder), REDIS_URL=server.url)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert re.match(rf"restore: (no archive in )?{folder}", done.stderr)


def test_a_file_that_cannot_be_written_is_one_line_too(tmp_path: Path) -> None:
    help_page = f"exec {shlex.quote(sys.executable)} -m chat --help"
    for output, code, said in (
        ("> /dev/full", 1, "chat: the output cannot be written: No space left on device\n"),
        ("| :", 0, ""),
    ):
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f"{help_page} {output}"],
            cwd=tmp_path,
            env=clean_environment() | {"PYTHONUNBUFFERED": ""},  # what is printed is written at the end
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.parametrize("seed", range(8))
def test_no_id_ever_means_two_messages_whatever_is_kept_removed_and_restored(
    redis: Client, folder: Path, seed: int
) -> None:
    chance = random.Random(seed)
    labs = [
        Lab(redis, archive=archive, shards=2, backlog=3, hard_backlog=8) for archive in (str(folder), str(folder), "")
    ]
    lab, names = labs[0], ROOMS[:4]
    given: dict[tuple[str, int], Any] = {}
    newest = dict.fromkeys(names, 0)
    back = 0

    def send() -> None:
        name = chance.choice(names)
        for _ in range(chance.randint(1, 6)):
            message = lab.send(name, len(given))
            assert message.id > newest[name]
            newest[name] = message.id
            given[name, message.id] = message.body

    def remove() -> None:
        own = chance.choice(labs)
        if chance.random() < 0.5:
            clean_channels(redis, channel_timeout=0, shards=[chance.randint(0, 1)], settings=own.settings)
        else:
            clean_backlog(redis, backlog=chance.randint(0, 3), settings=own.settings)

    def visit() -> None:
        lab.check("bob", chance.choice(names))
        if chance.random() < 0.5:
            clean_clients(redis, client_timeout=0, settings=lab.settings)

    for _ in range(60):
        chance.choice([send, send, remove, remove, visit])()
        if folder.exists() and chance.random() < 0.4:
            back += sum(one.messages for one in restore(redis, folder, settings=lab.settings))
        for name in names:
            found = lab.chat.read_history(name, limit=None)
            assert all(given[name, message.id] == message.body for message in found)
            trimmed = int(redis.hget(lab.key(name, "trimmed"), name) or 0)
            assert [message.id for message in found] == list(range(trimmed + 1, trimmed + 1 + len(found)))
        stats = read_stats(redis, settings=lab.settings)
        assert stats.messages == sum(redis.llen(lab.key(name, "log:")) for name in names)
    assert back > 0
