from __future__ import annotations

import ast
import re
import time
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from lab import Lab, at_once, bodies, calls, kept, keys
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import NoPermissionError, ResponseError
from servers import ROOT

from chat import InvalidArgumentError, ShardsMismatchError
from chat import Settings as ChatSettings
from chat.store.nodes import nodes
from chat.store.scripts import call_all
from tasks.cleaning import Report, clean_backlog, clean_channels, clean_clients, removal, rules, run
from tasks.cleaning.removal import Removal
from tasks.cleaning.scripts import DUE_BY_SIZE
from tasks.settings import Settings
from tasks.stats.figures import read_stats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.on_cluster

ALL = [clean_channels, clean_backlog, clean_clients]


def counts(report: Report) -> tuple[int, int, int]:
    return report.channels, report.messages, report.clients


# idle channels


def between(redis: Any, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    """Let something happen after candidates were named, before they are removed by a script that the server knows."""
    for node in nodes(redis):
        for rule in rules.RULES:
            node.script_load(rule.remove.script.source)
    monkeypatch.setattr(Removal, "_remove", meanwhile(act, Removal._remove))


def test_an_idle_channel_goes_with_everything_it_had(lab: Lab) -> None:
    lab.send_all("old", 3)
    lab.send_all("young", 2)
    lab.idle("old", 901)
    report = clean_channels(lab.redis)
    assert counts(report) == (1, 3, 0)
    assert (report.due, report.completed, report.busy) == (0, True, 0)
    assert not lab.traces("old")
    assert set(lab.traces("young")) == {"updated", "sizes", "heads", "trimmed", "log:"}


def test_a_channel_with_connected_clients_keeps_their_positions(lab: Lab) -> None:
    lab.check("bob", "old")
    lab.send_all("old", 3)
    lab.idle("old", 901)
    assert counts(clean_channels(lab.redis)) == (1, 3, 0)
    assert set(lab.traces("old")) == {"polled", "trimmed", "seen:", "read:"}
    assert lab.traces("old")["trimmed"] == b"3"
    assert lab.check("bob", "old").missed == 3


def test_a_channel_written_between_the_scan_and_the_removal_stays(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.send_all("lobby", 3)
    lab.idle("lobby", 901)
    between(lab.redis, monkeypatch, lambda: lab.send("lobby", "m4"))
    assert counts(clean_channels(lab.redis)) == (0, 0, 0)
    assert lab.redis.llen(lab.key("lobby", "log:")) == 4


def test_a_channel_without_clients_goes_on_above_its_ids_when_it_comes_back(lab: Lab) -> None:
    lab.send_all("lobby", 3)
    lab.idle("lobby", 901)
    assert clean_channels(lab.redis).channels == 1
    assert not lab.traces("lobby")
    assert lab.send("lobby", "m4").id == 4


def test_channels_that_are_removed_together_go_on_above_the_ids_of_the_longest(redis: Redis) -> None:
    lab = Lab(redis, shards=1)
    for channel, count in (("first", 1), ("longest", 3), ("last", 1)):
        lab.send_all(channel, count)
        lab.idle(channel, 1000)
    assert clean_channels(redis, settings=lab.settings).channels == 3
    assert lab.send("longest", "m4").id == 4


def test_a_channel_with_a_name_that_begins_alike_is_not_touched(lab: Lab) -> None:
    lab.send("lobby", "x")
    lab.send("lobby2", "x")
    lab.idle("lobby", 901)
    clean_channels(lab.redis)
    assert not lab.traces("lobby")
    assert len(lab.traces("lobby2")) == 5


def test_a_timeout_of_zero_takes_every_channel(lab: Lab) -> None:
    for number in range(40):
        lab.send(f"c{number}", "x")
    assert clean_channels(lab.redis, channel_timeout=0).channels == 40


# backlog


def test_each_channel_keeps_its_newest_messages(lab: Lab) -> None:
    for size in (3, 5, 8):
        lab.send_all(f"c{size}", size)
    assert counts(clean_backlog(lab.redis, backlog=5)) == (0, 3, 0)
    assert [lab.redis.llen(lab.key(f"c{size}", "log:")) for size in (3, 5, 8)] == [3, 5, 5]
    assert bodies(lab.check("bob", "c8", history=9)) == ["m4", "m5", "m6", "m7", "m8"]
    assert [message.id for message in lab.check("eve", "c8", history=9)] == [4, 5, 6, 7, 8]
    assert lab.redis.zscore(lab.key("c8", "sizes"), "c8") == 5


def test_the_fullest_channels_come_first(redis: Redis) -> None:
    lab = Lab(redis, shards=1)
    for number in range(1, 6):
        lab.send_all(f"c{number}", 2 * number)
    order = DUE_BY_SIZE(redis, ["chat:{0}:sizes"], (3, 0, 10))[2:]
    assert order == [b"c5", b"c4", b"c3", b"c2"]


def test_messages_too_old_go_whatever_the_backlog(lab: Lab) -> None:
    lab.send_all("lobby", 3)
    lab.aged("lobby", 100)
    lab.send_all("lobby", 2, start=4)
    assert counts(clean_backlog(lab.redis, message_timeout=60)) == (0, 3, 0)
    assert bodies(lab.check("bob", "lobby", history=9)) == ["m4", "m5"]
    assert lab.redis.zscore(lab.key("lobby", "heads"), "lobby") > 10**12
    assert counts(clean_backlog(lab.redis, message_timeout=60)) == (0, 0, 0)


def test_a_channel_whose_messages_all_aged_goes_on_with_the_next_id(lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.send_all("lobby", 3)
    lab.aged("lobby", 100)
    assert clean_backlog(lab.redis, message_timeout=60).messages == 3
    assert lab.send("lobby", "m4").id == 4
    check = lab.check("bob", "lobby")
    assert (check.missed, bodies(check)) == (3, ["m4"])


def test_no_message_timeout_means_no_age_limit(lab: Lab) -> None:
    lab.send_all("lobby", 3)
    lab.aged("lobby", 10**8)
    assert clean_backlog(lab.redis, message_timeout=0).messages == 0
    assert clean_backlog(lab.redis).messages == 0


def bounded(rule: rules.Rule) -> rules.Rule:
    """Return the rule with removals of seven messages or clients a call."""
    return replace(rule, remove=replace(rule.remove, budget=tuple(7 for _ in rule.remove.budget)))


def test_one_huge_channel_goes_in_bounded_slices(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "RULES", tuple(map(bounded, rules.RULES)))
    lab.send_all("lobby", 150)
    calls(lab.redis)
    assert clean_backlog(lab.redis, backlog=100).messages == 50
    assert calls(lab.redis)["ltrim"] == 8
    assert lab.redis.llen(lab.key("lobby", "log:")) == 100


def test_a_backlog_of_zero_keeps_nothing(lab: Lab) -> None:
    lab.send_all("lobby", 3)
    assert clean_backlog(lab.redis, backlog=0).messages == 3
    assert lab.send("lobby", "m4").id == 4


def test_a_channel_removed_between_the_scan_and_the_trim_does_not_come_back(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove() -> None:
        monkeypatch.undo()
        clean_channels(lab.redis, channel_timeout=0)

    lab.send_all("lobby", 9)
    between(lab.redis, monkeypatch, remove)
    clean_backlog(lab.redis, backlog=5)
    assert not lab.traces("lobby")


# clients


def test_a_client_that_stopped_checking_is_forgotten(lab: Lab) -> None:
    lab.send("lobby", "x")
    lab.check("bob", "lobby")
    lab.check("eve", "lobby")
    lab.away("bob", "lobby", 301)
    assert counts(clean_clients(lab.redis)) == (0, 0, 1)
    assert lab.redis.hkeys(lab.key("lobby", "read:")) == [b"eve"]
    assert lab.redis.zrange(lab.key("lobby", "seen:"), 0, -1) == [b"eve"]
    assert lab.check("bob", "lobby").new
    assert not lab.check("eve", "lobby").new


def test_one_client_that_goes_on_checking_does_not_hide_one_that_stopped(lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.away("bob", "lobby", 301)
    lab.check("eve", "lobby")
    lab.check("eve", "lobby")
    assert clean_clients(lab.redis).clients == 1


@pytest.mark.parametrize("count", [5, 60])
def test_of_several_clients_only_those_that_stopped_checking_are_forgotten(lab: Lab, count: int) -> None:
    for number in range(count):
        lab.check(f"client {number}", "lobby")
        lab.away(f"client {number}", "lobby", 301 if number % 5 == 0 else number)
    assert counts(clean_clients(lab.redis)) == (0, 0, count // 5)
    assert lab.chat.count_clients("lobby") == count - count // 5
    eldest = lab.redis.zrange(lab.key("lobby", "seen:"), 0, 0, withscores=True)[0][1]
    assert lab.redis.zscore(lab.key("lobby", "polled"), "lobby") == eldest


def test_a_client_created_and_swept_at_once_stays(lab: Lab) -> None:
    lab.check("bob", "lobby")
    for clean in ALL:
        clean(lab.redis)
    assert not lab.check("bob", "lobby").new


def test_a_client_refreshed_between_the_scan_and_the_removal_stays(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.check("bob", "lobby")
    lab.away("bob", "lobby", 301)
    between(lab.redis, monkeypatch, lambda: lab.check("bob", "lobby"))
    assert counts(clean_clients(lab.redis)) == (0, 0, 0)
    assert not lab.check("bob", "lobby").new


def test_a_quiet_channel_with_live_readers_keeps_them(lab: Lab) -> None:
    lab.send("lobby", "x")
    lab.check("bob", "lobby")
    lab.idle("lobby", 10**6)
    clean_channels(lab.redis)
    clean_clients(lab.redis)
    lab.send("lobby", "again")
    assert bodies(lab.check("bob", "lobby")) == ["again"]


def test_with_its_last_client_goes_what_was_left_of_a_removed_channel(lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.send_all("lobby", 3)
    lab.idle("lobby", 901)
    clean_channels(lab.redis)
    lab.away("bob", "lobby", 301)
    assert clean_clients(lab.redis).clients == 1
    assert not lab.traces("lobby")
    assert lab.redis.hget(lab.key("lobby", "meta"), "floor") == b"3"
    assert lab.redis.hget(lab.key("lobby", "meta"), "clients") == b"0"


def test_a_channel_that_was_only_ever_checked_leaves_nothing(lab: Lab) -> None:
    lab.check("bob", "nothing here")
    lab.away("bob", "nothing here", 301)
    clean_clients(lab.redis)
    assert not lab.traces("nothing here")


def test_a_channel_that_leaves_the_due_index_is_not_looked_at_again(lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.redis.zincrby(lab.key("lobby", "polled"), -301_000, "lobby")  # a lower bound long passed
    assert clean_clients(lab.redis).clients == 0
    calls(lab.redis)
    clean_clients(lab.redis)
    assert "zrem" not in calls(lab.redis)
    assert lab.redis.zscore(lab.key("lobby", "polled"), "lobby") == lab.redis.zscore(lab.key("lobby", "seen:"), "bob")


def test_many_clients_of_one_channel_go_in_bounded_slices(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "RULES", tuple(map(bounded, rules.RULES)))
    for number in range(50):
        lab.check(f"client {number}", "lobby")
    assert clean_clients(lab.redis, client_timeout=0).clients == 50
    assert calls(lab.redis)["hdel"] >= 7
    assert not lab.traces("lobby")


def test_positions_whose_presence_was_lost_go_too(lab: Lab) -> None:
    for channel in ("lobby", neighbour(lab, "lobby")):
        lab.check("bob", channel)
    lab.redis.delete(lab.key("lobby", "seen:"))
    lab.redis.zincrby(lab.key("lobby", "polled"), -301_000, "lobby")
    clean_clients(lab.redis)
    assert not lab.traces("lobby")
    assert lab.redis.hget(lab.key("lobby", "meta"), "clients") == b"1"


# all three


def test_a_name_that_was_never_a_client_is_not_counted_as_one(lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.check("carol", "lobby")
    lab.redis.zrem(lab.key("lobby", "seen:"), "carol")
    lab.redis.zadd(lab.key("lobby", "seen:"), {"of others": 1})
    lab.away("bob", "lobby", 301)
    assert clean_clients(lab.redis).clients == 1
    assert lab.redis.hget(lab.key("lobby", "meta"), "clients") == b"0"
    assert not lab.traces("lobby")


@pytest.mark.parametrize("clean", ALL)
def test_an_empty_redis_is_clean(redis: Redis, clean: Callable[..., Report]) -> None:
    report = clean(redis)
    assert (counts(report), report.completed) == ((0, 0, 0), True)
    kept = {key.decode().rsplit(":", 1)[1] for key in keys(redis)}
    assert kept == {"meta", "runs"}  # when it was done


def fill(lab: Lab, count: int = 25) -> None:
    """Make channels that are all idle, over a backlog of 2, with an expired client."""
    for number in range(count):
        channel = f"c{number}"
        lab.check("bob", channel)
        lab.send_all(channel, 4)
        lab.idle(channel, 901)
        lab.away("bob", channel, 301)


@pytest.mark.parametrize(
    ("clean", "arguments", "expected"),
    [
        (clean_channels, {}, (25, 100, 0)),
        (clean_backlog, {"backlog": 2}, (0, 50, 0)),
        (clean_backlog, {"backlog": 3, "message_timeout": 60}, (0, 100, 0)),
        (clean_clients, {}, (0, 0, 25)),
    ],
)
def test_a_dry_run_selects_the_same_and_changes_nothing(
    lab: Lab, clean: Callable[..., Report], arguments: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    fill(lab)
    for number in range(25):
        lab.aged(f"c{number}", 100)
    before = {key: lab.redis.dump(key) for key in keys(lab.redis)}
    dry = clean(lab.redis, dry_run=True, **arguments)
    assert {key: lab.redis.dump(key) for key in keys(lab.redis)} == before
    assert counts(dry) == counts(clean(lab.redis, **arguments)) == expected
    assert dry.dry_run
    assert dry.completed


@pytest.mark.parametrize("clean", ALL)
def test_a_dry_run_turns_every_page(lab: Lab, clean: Callable[..., Report], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "BATCH", 1)
    fill(lab)
    arguments = {"backlog": 2} if clean is clean_backlog else {}
    assert sum(counts(clean(lab.redis, dry_run=True, **arguments))) in {125, 50, 25}


@pytest.mark.parametrize("clean", ALL)
def test_chosen_shards_only(lab: Lab, clean: Callable[..., Report]) -> None:
    fill(lab)
    shards = {number: int(lab.key(f"c{number}", "x")[6:].split("}")[0]) for number in range(25)}
    chosen = sorted(set(shards.values()))[:2]
    mine = sum(shard in chosen for shard in shards.values())
    arguments = {"backlog": 2} if clean is clean_backlog else {}
    first = clean(lab.redis, shards=chosen, **arguments)
    rest = clean(lab.redis, **arguments)
    each = {clean_channels: 5, clean_backlog: 2, clean_clients: 1}[clean]
    assert (sum(counts(first)), sum(counts(rest))) == (mine * each, (25 - mine) * each)


@pytest.mark.parametrize("clean", ALL)
def test_a_shard_another_run_works_on_is_left_to_it(lab: Lab, clean: Callable[..., Report]) -> None:
    fill(lab)
    leases = [f"chat:{{{shard}}}:lease:{clean.__name__}" for shard in range(16)]
    for lease in leases:
        lab.redis.set(lease, "another run")
    arguments = {"backlog": 2} if clean is clean_backlog else {}
    report = clean(lab.redis, **arguments)
    assert counts(report) == (0, 0, 0)
    assert report.busy > 0
    assert not report.completed
    assert "already running" in str(report)
    lab.redis.delete(*leases)
    assert sum(counts(clean(lab.redis, **arguments))) > 0


@pytest.mark.parametrize("clean", ALL)
def test_a_lease_is_held_while_working_lapses_by_itself_and_is_given_back(
    lab: Lab, clean: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def look() -> None:
        seen.extend(lab.redis.pttl(key) for key in keys(lab.redis, "*lease*"))

    fill(lab)
    between(lab.redis, monkeypatch, look)
    clean(lab.redis, **({"backlog": 2} if clean is clean_backlog else {}))
    assert seen
    assert all(0 < ttl <= 30_000 for ttl in seen)
    assert not keys(lab.redis, "*lease*")


@pytest.mark.parametrize("clean", ALL)
def test_two_sweeps_at_once_do_the_work_once(lab: Lab, clean: Callable[..., Report]) -> None:
    for _ in range(3):
        fill(lab)
    reports: list[Report] = []
    arguments = {"backlog": 2} if clean is clean_backlog else {}
    expected = counts(clean(lab.redis, dry_run=True, **arguments))
    at_once(lambda: reports.append(clean(lab.redis, **arguments)))
    reports.append(clean(lab.redis, **arguments))
    assert tuple(sum(column) for column in zip(*map(counts, reports), strict=True)) == expected


def test_a_report_is_a_line_with_one_of_a_kind_in_the_singular_and_without_zeros() -> None:
    one = Report(sweep="clean_backlog", messages=1, seconds=0.1, busy=1, due=1)
    assert str(one) == "clean_backlog: removed 1 message in 0.100 s; already running in 1 shard; 1 channel still due"
    many = Report(sweep="clean_channels", channels=1, messages=1200, seconds=2, busy=2, due=25, overdue=7.4)
    assert str(many) == (
        "clean_channels: removed 1 channel, 1,200 messages in 2.000 s; already running in 2 shards;"
        " 25 channels still due, the longest for 7 s"
    )


@pytest.mark.parametrize("clean", ALL)
def test_a_budget_of_no_time_says_what_is_left(lab: Lab, clean: Callable[..., Report]) -> None:
    fill(lab)
    arguments = {"backlog": 2} if clean is clean_backlog else {}
    report = clean(lab.redis, time_budget=0, **arguments)
    assert (counts(report), report.due, report.completed) == ((0, 0, 0), 25, False)
    assert (report.overdue > 0) == (clean is not clean_backlog)
    assert "25 channels still due" in str(report)
    assert not keys(lab.redis, "*lease*")


@pytest.mark.parametrize("clean", ALL)
def test_progress_is_told_up_to_the_end(lab: Lab, clean: Callable[..., Report]) -> None:
    fill(lab)
    told: list[tuple[int, int]] = []
    arguments = {"backlog": 2} if clean is clean_backlog else {}
    clean(lab.redis, progress=lambda *step: told.append(step), **arguments)
    assert told[-1] == (25, 25)


@pytest.mark.parametrize("clean", ALL)
def test_another_number_of_shards_removes_nothing(lab: Lab, clean: Callable[..., Report]) -> None:
    fill(lab)
    with pytest.raises(ShardsMismatchError):
        clean(lab.redis, settings=Settings(shards=8))
    assert lab.redis.zcard(lab.key("c0", "updated")) > 0


@pytest.mark.parametrize(
    ("clean", "arguments", "says"),
    [
        (clean_channels, {"channel_timeout": -1}, "channel_timeout is -1, must be a number of seconds, 0 or more"),
        (clean_channels, {"channel_timeout": "900"}, "channel_timeout is '900'"),
        (clean_channels, {"channel_timeout": float("nan")}, "channel_timeout is nan"),
        (clean_channels, {"channel_timeout": True}, "channel_timeout is True"),
        (clean_backlog, {"backlog": -1}, "backlog is -1, must be a whole number of at least 0"),
        (clean_backlog, {"backlog": 1.5}, "backlog is 1.5"),
        (clean_backlog, {"message_timeout": "x"}, "message_timeout is 'x'"),
        (clean_clients, {"client_timeout": float("inf")}, "client_timeout is inf"),
        (clean_clients, {"shards": [16]}, "shards is .16., must be a list of numbers from 0 to 15, or None for all"),
        (clean_clients, {"shards": []}, "shards is .., must be"),
        (clean_clients, {"shards": 3}, "shards is 3, must be"),
        (clean_clients, {"shards": "1"}, "shard"),
        (clean_clients, {"dry_run": "no"}, "dry_run is 'no', must be true or false"),
        (clean_clients, {"time_budget": -1}, "time_budget is -1"),
    ],
)
def test_a_bad_argument_is_one_clear_error_before_redis_is_touched(
    clean: Callable[..., Report], arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=says):
        clean(Redis(port=1), **arguments)


def seed(redis: Redis, count: int) -> None:
    """Store channels with one young message each, straight into the layout."""
    now = int(redis.time()[0]) * 1000
    pipeline = redis.pipeline(transaction=False)
    for shard in range(16):
        names = {f"{shard}-{number}": now for number in range(count // 16)}
        head = f"chat:{{{shard}}}:"
        for index in ("updated", "heads", "polled"):
            pipeline.zadd(head + index, names)
        pipeline.zadd(head + "sizes", dict.fromkeys(names, 1))
    pipeline.execute()


def test_progress_is_told_now_and_then_and_at_the_end(redis: Redis) -> None:
    lab = Lab(redis, hard_backlog=0)
    seed(lab.redis, 1_600)
    told: list[tuple[int, int]] = []
    clean_channels(lab.redis, channel_timeout=0, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (1_600, 1_600)
    assert len(told) <= 3 + 2  # at the start, twice a second, at the end
    told.clear()
    clean_channels(lab.redis, progress=lambda done, total: told.append((done, total)))
    assert told == []


def test_a_dry_run_beside_a_sweep_has_nothing_due_below_zero(lab: Lab) -> None:
    seed(lab.redis, 3_000)
    sweeping = meanwhile(lambda: clean_channels(lab.redis, channel_timeout=0), lambda *_: None)
    report = clean_channels(lab.redis, channel_timeout=0, dry_run=True, progress=sweeping)
    assert (report.due, report.completed) == (0, True)


def test_a_sweep_with_nothing_due_makes_the_same_few_calls_at_any_size(lab: Lab) -> None:
    seen = []
    for count in (160, 200_000):
        lab.redis.flushdb()
        seed(lab.redis, count)
        for clean in ALL:
            clean(lab.redis)
        calls(lab.redis)
        for clean in ALL:
            clean(lab.redis, **({"message_timeout": 60} if clean is clean_backlog else {}))
        seen.append(calls(lab.redis))
    assert seen[0] == seen[1]
    assert seen[0]["evalsha"] == 4 * 16 + 2 * 3  # the shards, by four indexes; the start and the end of three runs
    assert seen[0]["get"] == 3
    assert set(seen[0]) <= {"evalsha", "get", "hget", "hincrby", "hset", "time", "zcount"}


def meanwhile(act: Callable[[], Any], then: Callable[..., Any]) -> Callable[..., Any]:
    """Return `then` with `act` done before it: what happens between the scan and the removal."""

    def both(*args: Any) -> Any:
        act()
        return then(*args)

    return both


# a server whose clock steps back, as in a failover to a slower host


def test_a_client_seen_by_a_clock_ahead_is_kept_and_forgotten_by_the_slower_one(lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.away("bob", "lobby", -3600)
    assert clean_clients(lab.redis).clients == 0
    assert not lab.check("bob", "lobby").new
    lab.away("bob", "lobby", 301)
    assert clean_clients(lab.redis).clients == 1


def test_a_channel_written_by_a_clock_ahead_loses_nothing(lab: Lab) -> None:
    lab.check("bob", "lobby")
    sent = lab.send_all("lobby", 3)
    lab.idle("lobby", -3600)
    lab.aged("lobby", -3600)
    sent += lab.send_all("lobby", 2, start=4)
    for clean in ALL:
        clean(lab.redis, **({"message_timeout": 60} if clean is clean_backlog else {}))
    check = lab.check("bob", "lobby")
    assert (check.missed, bodies(check)) == (0, sent)


YEAR = 365 * 86400


def checked_ahead(lab: Lab, client: str, channel: str) -> None:
    """Check as if the server's clock were years ahead."""
    lab.check(client, channel)
    score = lab.redis.zincrby(lab.key(channel, "seen:"), 10 * YEAR * 1000, client)
    lab.redis.zadd(lab.key(channel, "polled"), {channel: score})


def test_a_client_that_checked_by_a_clock_far_ahead_expires_as_if_it_had_checked_now(lab: Lab) -> None:
    lab.send("lobby", "hi")
    checked_ahead(lab, "ghost", "lobby")
    assert clean_clients(lab.redis).clients == 0
    lab.redis.zincrby(lab.key("lobby", "polled"), -301_000, "lobby")
    assert clean_clients(lab.redis).clients == 0
    lab.away("ghost", "lobby", 301)
    assert clean_clients(lab.redis).clients == 1
    clean_channels(lab.redis, channel_timeout=0)
    assert not lab.traces("lobby")


@pytest.mark.parametrize("clients", [1, 250])
def test_a_sweep_of_every_client_forgets_those_of_a_clock_far_ahead_and_ends(lab: Lab, clients: int) -> None:
    for number in range(clients):
        checked_ahead(lab, f"ghost {number}", "lobby")
    report = clean_clients(lab.redis, client_timeout=0, time_budget=10)
    assert (report.clients, report.completed, report.error) == (clients, True, "")
    assert not lab.traces("lobby")


def test_messages_of_a_clock_far_ahead_go_with_the_first_later_one_that_is_too_old(lab: Lab) -> None:
    lab.send_all("lobby", 3)
    lab.aged("lobby", -10 * YEAR)
    lab.redis.zadd(lab.key("lobby", "updated"), {"lobby": 1})  # as a message counts whose stamp is far ahead
    lab.redis.rpush(lab.key("lobby", "log:"), f'{int(time.time() - 100) * 1000}:"m4"')
    lab.redis.zincrby(lab.key("lobby", "sizes"), 1, "lobby")
    lab.send("lobby", "m5")
    lab.redis.zadd(lab.key("lobby", "heads"), {"lobby": 1})
    report = clean_backlog(lab.redis, message_timeout=60, time_budget=10)
    assert (report.messages, report.completed) == (4, True)
    assert bodies(lab.check("bob", "lobby", history=9)) == ["m5"]


def test_a_message_of_a_clock_far_ahead_counts_as_young_and_is_not_due_for_ever(lab: Lab) -> None:
    lab.send_all("lobby", 3)
    lab.aged("lobby", -10 * YEAR)
    for limits in ({"message_timeout": 60}, {"backlog": 2}):
        lab.redis.zadd(lab.key("lobby", "heads"), {"lobby": 1})
        assert clean_backlog(lab.redis, **limits).completed
        assert lab.redis.zscore(lab.key("lobby", "heads"), "lobby") < (time.time() + 60) * 1000
    assert bodies(lab.check("bob", "lobby", history=9)) == ["m2", "m3"]


@pytest.mark.parametrize("hook", ["", "builtins:id"])
@pytest.mark.parametrize("clean", ALL)
def test_a_sweep_that_can_remove_nothing_of_what_is_due_ends_and_says_so(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, clean: Callable[..., Report], hook: str
) -> None:
    lab = Lab(redis, shards=1, on_expire=hook)
    for channel in ("a", "b", "c"):
        lab.check("bob", channel)
        lab.send_all(channel, 3)
        lab.idle(channel, 901)
        lab.away("bob", channel, 301)
    remove = Removal._remove
    monkeypatch.setattr(Removal, "_remove", lambda self, *_: remove(self, [], []))
    arguments = {"backlog": 2} if clean is clean_backlog else {}
    report = clean(redis, settings=lab.settings, time_budget=10, **arguments)
    assert (counts(report), report.due, report.completed) == ((0, 0, 0), 3, False)
    assert "is due, but nothing of it was removed in" in report.error
    assert report.seconds < 8


# ids, when `trimmed` is lost while a channel is gone and a client is still connected


@pytest.mark.parametrize("ends", ["leave", "expire"])
def test_no_id_is_given_twice_when_ids_are_lost_before_the_last_client_goes(lab: Lab, ends: str) -> None:
    lab.check("bob", "lobby")
    lab.send("lobby", "m1")
    lab.idle("lobby", 901)
    assert clean_channels(lab.redis).channels == 1
    cursor = lab.check("bob", "lobby").cursor
    lab.redis.delete(lab.key("lobby", "trimmed"))
    if ends == "leave":
        lab.chat.leave_channel("bob", "lobby")
    else:
        lab.away("bob", "lobby", 301)
        assert clean_clients(lab.redis).clients == 1
    assert not lab.traces("lobby")
    assert lab.send("lobby", "other").id > 10**12
    check = lab.check("bob", "lobby", after=cursor)
    assert (check.new, bodies(check)) == (True, ["other"])


def test_a_client_that_was_never_there_or_leaves_again_leaves_the_ids_alone(lab: Lab) -> None:
    lab.chat.leave_channel("bob", "lobby")
    lab.check("bob", "lobby")
    lab.chat.leave_channel("bob", "lobby")
    lab.chat.leave_channel("bob", "lobby")
    assert lab.send("lobby", "m1").id == 1


def test_no_id_is_given_twice_when_a_log_and_its_size_are_lost(lab: Lab) -> None:
    lab.send_all("lobby", 3)
    lab.redis.delete(lab.key("lobby", "log:"), lab.key("lobby", "sizes"))
    lab.idle("lobby", 901)
    assert clean_channels(lab.redis).channels == 1
    assert lab.send("lobby", "other").id > 10**12


# scripts that run twice, as their reply was lost


def contents(lab: Lab) -> dict[bytes, bytes]:
    """Return what is stored, but for the leases and the record of the runs."""
    kept = [key for key in keys(lab.redis) if b":lease:" not in key and not key.endswith(b":runs")]
    return {key: lab.redis.dump(key) for key in kept}


def repeated(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> list[dict[bytes, bytes]]:
    """Let every removal be done twice; return what is stored after each."""
    states: list[dict[bytes, bytes]] = []

    def twice(client: Any, calls: Any) -> Any:
        for script, *rest in calls[:1] * 2:
            reply = script(client, *rest)
            states.append(contents(lab))
        return [reply, *call_all(client, calls[1:])]

    monkeypatch.setattr(removal, "call_all", twice)
    return states


@pytest.mark.parametrize("lost", ["", "trimmed", "sizes", "log:"])
@pytest.mark.parametrize(
    ("clean", "arguments"),
    [
        (clean_channels, {}),
        (clean_backlog, {"backlog": 2}),
        (clean_backlog, {"backlog": 3, "message_timeout": 60}),
        (clean_clients, {}),
    ],
)
def test_a_removal_that_is_repeated_changes_nothing_more(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, clean: Callable[..., Report], arguments: dict[str, Any], lost: str
) -> None:
    fill(lab, 5)
    for number in range(5):
        lab.aged(f"c{number}", 100)
        if lost:
            lab.redis.delete(lab.key(f"c{number}", lost))
    states = repeated(lab, monkeypatch)
    clean(lab.redis, **arguments)
    monkeypatch.undo()
    assert states or lost == "sizes"  # that says who is over the backlog
    assert states[::2] == states[1::2]


@pytest.mark.parametrize("lost", [False, True])
def test_a_last_client_that_is_forgotten_again_raises_no_id(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, *, lost: bool
) -> None:
    lab.check("bob", "lobby")
    lab.send_all("lobby", 3)
    lab.idle("lobby", 901)
    clean_channels(lab.redis)
    if lost:
        lab.redis.delete(lab.key("lobby", "trimmed"))
    lab.away("bob", "lobby", 301)
    states = repeated(lab, monkeypatch)
    clean_clients(lab.redis)
    assert states[::2] == states[1::2] != []


# leases


@pytest.mark.parametrize("clean", ALL)
def test_a_run_that_lost_its_lease_removes_nothing_more_and_leaves_the_others_alone(
    lab: Lab, clean: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    stolen: dict[bytes, bytes] = {}

    def steal() -> None:
        for key in keys(lab.redis, "*lease*"):
            lab.redis.set(key, "another run")
            stolen[key] = b"another run"

    fill(lab)
    before = contents(lab)
    between(lab.redis, monkeypatch, steal)
    report = clean(lab.redis, **({"backlog": 2} if clean is clean_backlog else {}))
    assert (counts(report), report.completed, report.busy) == ((0, 0, 0), False, len(stolen))
    assert "the lease was lost" in report.error
    assert contents(lab) == before
    assert {key: lab.redis.get(key) for key in keys(lab.redis, "*lease*")} == stolen


class Halt(BaseException):
    """Such as KeyboardInterrupt."""


@pytest.mark.parametrize("error", [Halt, ValueError])
@pytest.mark.parametrize("clean", ALL)
def test_a_lease_is_given_back_and_what_is_gone_is_counted_when_a_run_is_cut_short(
    redis: Redis, clean: Callable[..., Report], error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(done: int, _: int) -> None:
        if done:
            held.extend(keys(redis, "*lease*"))
            raise error

    held: list[bytes] = []
    lab = Lab(redis, shards=1)
    fill(lab, 5)
    monkeypatch.setattr(run, "BATCH", 2)
    arguments = {"backlog": 2} if clean is clean_backlog else {}
    with pytest.raises(error):
        clean(redis, progress=interrupt, settings=lab.settings, **arguments)
    assert len(held) == 1
    assert not keys(redis, "*lease*")
    last = read_stats(redis, settings=lab.settings).sweeps[clean.__name__].last
    assert (last.runs, last.failures, last.error.split(":")[0]) == (1, 1, error.__name__)
    gone = {clean_channels: (2, 8, 0), clean_backlog: (0, 4, 0), clean_clients: (0, 0, 2)}[clean]
    assert (last.channels, last.messages, last.clients) == gone


# what is none of the chat's


def neighbour(lab: Lab, channel: str) -> str:
    """Return the name of another channel of the same shard."""
    names = (f"next to {channel} {number}" for number in range(999))
    return next(name for name in names if lab.key(name, "meta") == lab.key(channel, "meta"))


WRONG = "WRONGTYPE Operation against a key holding the wrong kind of value"


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("clean", "damaged", "arguments", "expected"),
    [
        (clean_channels, "log:", {}, (5, 20, 0)),
        (clean_backlog, "log:", {"backlog": 2}, (0, 10, 0)),
        (clean_backlog, "log:", {"backlog": 3, "message_timeout": 60}, (0, 20, 0)),
        (clean_clients, "seen:", {}, (0, 0, 5)),
        (clean_clients, "read:", {}, (0, 0, 5)),
    ],
)
def test_a_key_of_another_type_is_one_channels_error_and_the_rest_is_cleaned(
    lab: Lab,
    clean: Callable[..., Report],
    damaged: str,
    arguments: dict[str, Any],
    expected: tuple[int, int, int],
    dry_run: bool,  # noqa: FBT001
) -> None:
    fill(lab, 5)
    for number in range(5):
        lab.aged(f"c{number}", 100)
    bad = neighbour(lab, "c0")
    lab.check("bob", bad)
    lab.send_all(bad, 4)
    lab.idle(bad, 9_000)
    lab.aged(bad, 9_000)
    lab.away("bob", bad, 9_000)
    lab.redis.delete(lab.key(bad, damaged))
    lab.redis.set(lab.key(bad, damaged), "of others")
    before = {name: value for name, value in contents(lab).items() if bad.encode() in name}
    report = clean(lab.redis, dry_run=dry_run, **arguments)
    if not (dry_run and damaged == "read:"):  # a look does not read that
        assert report.error.startswith(f"channel '{bad}': {WRONG}")
        assert not report.completed
        assert counts(report) == expected
    assert {name: value for name, value in contents(lab).items() if bad.encode() in name} == before
    assert not keys(lab.redis, "*lease*")


@pytest.mark.parametrize("clean", ALL)
def test_channels_that_cannot_be_cleaned_do_not_hide_those_behind_them(
    redis: Redis, clean: Callable[..., Report]
) -> None:
    lab = Lab(redis, shards=1)
    damaged = "seen:" if clean is clean_clients else "log:"
    for number in range(70):
        channel = f"c{number}"
        lab.check("bob", channel)
        lab.send_all(channel, 4 if number < 65 else 3)
        lab.idle(channel, 1_000 - number)
        lab.away("bob", channel, 1_000 - number)
        if number < 65:
            lab.redis.delete(lab.key(channel, damaged))
            lab.redis.set(lab.key(channel, damaged), "of others")
    arguments = {"backlog": 2} if clean is clean_backlog else {}
    expected = {clean_channels: (5, 15, 0), clean_backlog: (0, 5, 0), clean_clients: (0, 0, 5)}[clean]
    for _ in range(2):
        report = clean(redis, settings=lab.settings, **arguments)
        assert (counts(report), report.due, report.completed) == (expected, 65, False)
        expected = (0, 0, 0)


@pytest.mark.parametrize("clean", ALL)
def test_a_shard_whose_index_is_of_another_type_does_not_end_the_sweep(lab: Lab, clean: Callable[..., Report]) -> None:
    fill(lab)
    index = {clean_channels: "updated", clean_backlog: "sizes", clean_clients: "polled"}[clean]
    broken = lab.key("c0", index)
    there = sum(lab.key(f"c{number}", index) == broken for number in range(25))
    lab.redis.delete(broken)
    lab.redis.set(broken, "of others")
    report = clean(lab.redis, **({"backlog": 2} if clean is clean_backlog else {}))
    each = {clean_channels: 5, clean_backlog: 2, clean_clients: 1}[clean]
    assert (sum(counts(report)), report.completed) == ((25 - there) * each, False)
    shard = broken[6:].split("}")[0]
    assert report.error.startswith(f"shard {shard}: ResponseError: {WRONG}")
    assert not keys(lab.redis, "*lease*")


@pytest.mark.parametrize(
    ("clean", "arguments", "index"),
    [
        *((clean_channels, {}, index) for index in ("sizes", "heads", "polled", "trimmed")),
        *((clean_backlog, {"backlog": 2}, index) for index in ("heads", "trimmed")),
    ],
)
def test_a_channel_whose_shard_is_damaged_goes_whole_or_not_at_all(
    lab: Lab, clean: Callable[..., Report], arguments: dict[str, Any], index: str
) -> None:
    fill(lab)
    broken = lab.key("c0", index)
    there = [f"c{number}" for number in range(25) if lab.key(f"c{number}", index) == broken]
    lab.redis.delete(broken)
    lab.redis.set(broken, "of others")
    before = {key: value for key, value in contents(lab).items() if key.startswith(broken.split("}")[0].encode())}
    report = clean(lab.redis, **arguments)
    assert (report.channels or report.messages / 2, report.due) == (25 - len(there), len(there))
    assert report.error in {f"channel '{channel}': {WRONG}" for channel in there}
    assert before.items() <= contents(lab).items()


@pytest.mark.parametrize("index", ["updated", "trimmed"])
def test_a_channel_whose_shard_is_damaged_is_wholly_forgotten_when_that_is_mended(lab: Lab, index: str) -> None:
    lab.check("bob", "lobby")
    lab.send_all("lobby", 3)
    lab.idle("lobby", 901)
    clean_channels(lab.redis)
    lab.away("bob", "lobby", 301)
    kept = lab.redis.dump(lab.key("lobby", index))
    lab.redis.delete(lab.key("lobby", index))
    lab.redis.set(lab.key("lobby", index), "of others")
    report = clean_clients(lab.redis)
    assert (report.due, report.error) == (1, f"channel 'lobby': {WRONG}")
    lab.redis.delete(lab.key("lobby", index))
    if kept:
        lab.redis.restore(lab.key("lobby", index), 0, kept)
    assert clean_clients(lab.redis).completed
    assert not lab.traces("lobby")
    assert lab.send("lobby", "m4").id == 4


@pytest.mark.parametrize(
    ("clean", "arguments", "field"),
    [
        *((clean_channels, {}, field) for field in ("removed", "floor", "unkept")),
        *((clean_backlog, {"backlog": 2}, field) for field in ("removed", "floor", "unkept")),
        *((clean_clients, {}, field) for field in ("clients", "floor")),
    ],
)
def test_where_a_field_of_meta_is_no_number_nothing_is_done_by_halves(
    lab: Lab, clean: Callable[..., Report], arguments: dict[str, Any], field: str
) -> None:
    fill(lab)
    broken = lab.key("c0", "meta")
    there = [f"c{number}" for number in range(25) if lab.key(f"c{number}", "meta") == broken]
    lab.redis.hset(broken, field, "of others")
    errors = {f"channel '{channel}': ERR the field {field} of meta is no number" for channel in there}
    before = {key: value for key, value in contents(lab).items() if key.startswith(broken.split("}")[0].encode())}
    dry = clean(lab.redis, dry_run=True, **arguments)
    report = clean(lab.redis, **arguments)
    each = {clean_channels: 5, clean_backlog: 2, clean_clients: 1}[clean]
    assert sum(counts(dry)) == sum(counts(report)) == (25 - len(there)) * each
    assert (report.due, report.completed, dry.completed) == (len(there), False, False)
    assert {report.error, dry.error} <= errors
    assert before.items() <= contents(lab).items()


def test_the_account_of_an_emptied_shard_is_mended_though_another_field_is_no_number(lab: Lab) -> None:
    lab.send_all("lobby", 3)
    lab.idle("lobby", 901)
    lab.redis.hset(lab.key("lobby", "meta"), "sent", "of others")
    report = clean_channels(lab.redis)
    assert (report.channels, report.messages, report.completed) == (1, 3, True)
    assert lab.redis.hget(lab.key("lobby", "meta"), "adjusted") == b"3"


BY_AGE: dict[str, Any] = {"backlog": 100, "message_timeout": 60}


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("clean", "arguments", "index"),
    [
        *((clean_channels, {}, index) for index in ("sizes", "heads", "polled", "trimmed", "meta")),
        *((clean_backlog, {"backlog": 2}, index) for index in ("heads", "trimmed", "meta")),
        *((clean_backlog, BY_AGE, index) for index in ("sizes", "trimmed", "meta")),
    ],
)
def test_what_cannot_be_removed_is_not_handed_over_and_is_named_in_a_dry_run(
    lab: Lab,
    clean: Callable[..., Report],
    arguments: dict[str, Any],
    index: str,
    tmp_path: Path,
    dry_run: bool,  # noqa: FBT001
) -> None:
    fill(lab)
    for number in range(25):
        lab.aged(f"c{number}", 100)
    broken = lab.key("c0", index)
    there = {f"c{number}" for number in range(25) if lab.key(f"c{number}", index) == broken}
    lab.redis.delete(broken)
    lab.redis.set(broken, "of others")
    before = {key: value for key, value in contents(lab).items() if key.startswith(broken.split("}")[0].encode())}
    before.pop(lab.key("c0", "meta").encode())  # when nothing was due by the other rule
    settings = replace(lab.settings, archive=str(tmp_path / "archive"))
    report = clean(lab.redis, settings=settings, dry_run=dry_run, **arguments)
    each = 2 if arguments.get("backlog") == 2 else 4
    assert (report.messages, report.completed) == ((25 - len(there)) * each, False)
    assert WRONG in report.error
    assert before.items() <= contents(lab).items()
    if not dry_run:
        assert not there & {channel for channel, _, _ in kept(tmp_path / "archive")}


@pytest.mark.parametrize("index", ["updated", "trimmed"])
def test_the_clients_of_channels_that_have_messages_go_though_another_index_is_damaged(lab: Lab, index: str) -> None:
    fill(lab)
    lab.redis.delete(lab.key("c0", index))
    lab.redis.set(lab.key("c0", index), "of others")
    assert clean_clients(lab.redis, dry_run=True).completed
    report = clean_clients(lab.redis)
    assert (report.clients, report.error, report.completed) == (25, "", True)


@pytest.mark.parametrize("index", ["updated", "trimmed"])
def test_a_dry_run_names_the_channel_whose_last_client_cannot_be_forgotten(lab: Lab, index: str) -> None:
    lab.check("bob", "lobby")
    lab.away("bob", "lobby", 301)
    lab.redis.delete(lab.key("lobby", index))
    lab.redis.set(lab.key("lobby", index), "of others")
    for dry_run in (True, False):
        report = clean_clients(lab.redis, dry_run=dry_run)
        assert (report.clients, report.error, report.completed) == (0, f"channel 'lobby': {WRONG}", False)


def test_a_lease_of_another_type_is_one_shards_error(lab: Lab) -> None:
    fill(lab)
    lab.redis.hset(lab.key("c0", "lease:clean_channels"), "of", "others")
    report = clean_channels(lab.redis)
    assert 0 < report.channels < 25
    assert report.error.startswith("shard ")
    assert WRONG in report.error


@pytest.mark.parametrize("clean", ALL)
def test_names_of_others_in_an_index_go_and_harm_nothing(lab: Lab, clean: Callable[..., Report]) -> None:
    fill(lab)
    for index, score in (("updated", 1), ("sizes", 10**6), ("heads", 1), ("polled", 1)):
        for name in ("of others", b"\xff\xfe", f"only in {index}"):
            lab.redis.zadd(lab.key("c0", index), {name: score})
    arguments: dict[str, Any] = {"backlog": 2, "message_timeout": 900} if clean is clean_backlog else {}
    report = clean(lab.redis, **arguments)
    assert (report.completed, report.error) == (True, "")
    assert clean(lab.redis, **arguments).completed


def test_an_entry_of_others_costs_no_young_message(lab: Lab) -> None:
    sent = lab.send_all("lobby", 5)
    lab.redis.lset(lab.key("lobby", "log:"), 2, "of others")
    lab.redis.zadd(lab.key("lobby", "heads"), {"lobby": 1})
    report = clean_backlog(lab.redis, message_timeout=60)
    assert (report.messages, report.completed) == (0, False)
    assert "channel 'lobby': " in report.error
    assert "the entry at index 2 of its log is no message" in report.error
    assert lab.redis.llen(lab.key("lobby", "log:")) == len(sent)


def test_entries_of_others_count_towards_the_backlog(lab: Lab) -> None:
    lab.send_all("lobby", 5)
    for index in (0, 3):
        lab.redis.lset(lab.key("lobby", "log:"), index, "of others")
    assert clean_backlog(lab.redis, backlog=2).messages == 3
    assert clean_backlog(lab.redis, backlog=1).messages == 1
    assert bodies(lab.check("bob", "lobby", history=9)) == ["m5"]


def test_a_client_cannot_leave_a_channel_that_is_damaged_without_being_told(lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.redis.delete(lab.key("lobby", "read:"))
    lab.redis.set(lab.key("lobby", "read:"), "of others")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        lab.chat.leave_channel("bob", "lobby")


# arguments of another type


@pytest.mark.parametrize("clean", ALL)
@pytest.mark.parametrize(
    ("client", "was"),
    [
        ("redis://localhost", "a str"),
        (None, "a NoneType"),
        (Redis, "the class redis.client.Redis"),
        (AsyncRedis(), "a redis.asyncio.client.Redis"),
    ],
)
def test_what_is_no_client_is_refused_at_once(clean: Callable[..., Report], client: Any, was: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"client is {was}, must be a redis.Redis or RedisCluster: use "):
        clean(client)


@pytest.mark.parametrize("clean", ALL)
@pytest.mark.parametrize("settings", [{"backlog": 5}, "chat", Settings])
def test_settings_of_another_type_are_refused_at_once(clean: Callable[..., Report], settings: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"settings are a \w+, must be Settings\(\.\.\.\), or None for the"):
        clean(Redis(port=1), settings=settings)


def test_the_chats_settings_will_do_and_keep_nothing(lab: Lab) -> None:
    lab.send_all("lobby", 5)
    report = clean_backlog(lab.redis, settings=ChatSettings(backlog=3))
    assert (report.messages, report.archived, report.completed) == (2, 0, True)


# the table of rules


def test_a_rule_that_is_changed_changes_the_sweep_its_dry_run_and_the_stats(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Idle by the time of the oldest message instead of the newest, and by the clients' limit: nothing else says so."""
    lab.send("lobby", "old")
    lab.aged("lobby", 400)
    lab.send("lobby", "young")
    lab.redis.zadd(lab.key("lobby", "updated"), {"lobby": 1}, lt=True)  # the script looks again, by its own limit
    other = replace(rules.RULES[0], index="heads", limit="client_timeout")
    monkeypatch.setattr(rules, "RULES", (other, *rules.RULES[1:]))
    stats = read_stats(lab.redis, settings=lab.settings)
    assert (stats.sweeps["clean_channels"].due, stats.sweeps["clean_channels"].overdue) == (
        1,
        pytest.approx(100, abs=5),
    )
    assert sum(shard.idle for shard in stats.shards) == 1
    assert clean_channels(lab.redis, settings=lab.settings, dry_run=True).channels == 1
    assert clean_channels(lab.redis, settings=lab.settings).channels == 1
    assert lab.redis.hexists("chat:{0}:meta", "done:heads")


def test_a_rule_that_is_added_is_swept_counted_and_shown(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.send_all("lobby", 5)
    lab.idle("lobby", 901)
    added = replace(rules.RULES[1], index="updated", order=rules.BY_AGE, limit="channel_timeout", stat="too_old")
    monkeypatch.setattr(rules, "RULES", (*rules.RULES, added))
    assert read_stats(lab.redis, settings=lab.settings).sweeps["clean_backlog"].due == 1
    assert clean_backlog(lab.redis, settings=lab.settings, backlog=4, dry_run=True).messages == 2  # of either rule
    assert clean_backlog(lab.redis, settings=lab.settings, time_budget=0).due == 1


def test_no_module_but_the_table_says_by_which_index_something_is_due() -> None:
    sources = {path: path.read_text() for path in (ROOT / "tasks").rglob("*.py")}
    naming = {path.name for path, source in sources.items() if re.search(r'"(heads|polled|sizes)"', source)}
    assert naming == {"rules.py", "usage.py", "channel.py"}  # how large they are, and what comes back


def test_modules_import_from_others_only_what_these_export() -> None:
    for path in (ROOT / "tasks").rglob("*.py"):
        for part in ast.walk(ast.parse(path.read_text())):
            if isinstance(part, ast.ImportFrom) and (part.module or "").startswith("tasks."):
                module = import_module(part.module or "")
                names = {item.name for item in part.names if not isinstance(getattr(module, item.name), ModuleType)}
                assert names <= set(getattr(module, "__all__", ())), path


# a user who may only read


@contextmanager
def only_reading(redis: Any) -> Iterator[Any]:
    """Give a client, of each server, of a user who may not write."""
    allowed = ("-@all", "+@read", "+@connection", "+eval_ro", "+evalsha_ro", "+time", "+info", "+acl", "+cluster")
    for node in nodes(redis):
        node.execute_command("ACL", "SETUSER", "default", *allowed, "resetkeys", "%R~*")
    try:
        yield redis
    finally:
        for node in nodes(redis):
            node.execute_command("ACL", "SETUSER", "default", "+@all", "allkeys")


def test_a_user_who_may_only_read_sees_what_would_go_and_the_stats_and_removes_nothing(lab: Lab) -> None:
    fill(lab)
    for number in range(25):
        lab.aged(f"c{number}", 100)
    limits: dict[Any, dict[str, Any]] = {clean_backlog: {"backlog": 3, "message_timeout": 60}}
    before = contents(lab)
    with only_reading(lab.redis) as reader:
        seen = [counts(clean(reader, settings=lab.settings, dry_run=True, **limits.get(clean, {}))) for clean in ALL]
        due = [sweep.due for sweep in read_stats(reader, settings=lab.settings).sweeps.values()]
        for clean in ALL:
            with pytest.raises(NoPermissionError):
                clean(reader, settings=lab.settings)
    assert seen == [(25, 100, 0), (0, 100, 0), (0, 0, 25)]
    assert due == [25, 0, 25]
    assert contents(lab) == before
