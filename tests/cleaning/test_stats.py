"""What operators are told: the record of the runs, whether cleaning keeps up, memory, fullest channels, queue."""

from __future__ import annotations

import re
from io import StringIO
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

import pytest
from lab import Lab, calls, keys
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, ResponseError

from chat import SettingsError
from chat.screen import age, size
from tasks.cleaning import clean_backlog, clean_channels, clean_clients, record
from tasks.commands.console import console
from tasks.commands.stats_screen import Reading, verdict
from tasks.commands.stats_screen import screen as stats_screen
from tasks.settings import Settings
from tasks.stats.figures import Stats, SweepStats, read_stats
from tasks.stats.usage import Memory, Queue, read_fullest, read_memory, read_queue
from tasks.stats.values import LATE_SECONDS

if TYPE_CHECKING:
    from redis import Redis

pytestmark = pytest.mark.on_cluster

ALL = (clean_channels, clean_backlog, clean_clients)
NAMES = [clean.__name__ for clean in ALL]


def clean_all(lab: Lab) -> None:
    for clean in ALL:
        clean(lab.redis, settings=lab.settings)


def stats(lab: Lab) -> Stats:
    return read_stats(lab.redis, settings=lab.settings)


def earlier(lab: Lab, seconds: float, *indexes: str) -> None:
    """Make it so long ago that a sweep found nothing due in the indexes, in every shard."""
    for shard in range(lab.settings.shards):
        for index in indexes:
            lab.redis.hincrby(f"chat:{{{shard}}}:meta", f"done:{index}", int(-seconds * 1000))


def lines(reading: Reading, width: int | None = None) -> list[str]:
    """Return what is printed of a reading: in a pipe, or on a terminal of that width."""
    out = console(StringIO())
    if width:
        out.width = width
    with out.capture() as shown:
        out.print(stats_screen(reading))
    return shown.get().splitlines()


def screen(lab: Lab) -> list[str]:
    empty = Memory(messages=0, clients=0, indexes=0, tokens=0)
    return lines(Reading(stats(lab), empty, [], Queue(waiting=0, unacked=0)))


# whether cleaning keeps up


def test_before_the_first_run_nothing_has_succeeded(lab: Lab) -> None:
    lab.send("lobby", "hi")
    assert [(sweep.success_age, sweep.behind, verdict(sweep)) for sweep in stats(lab).sweeps.values()] == [
        (None, None, "no success yet")
    ] * 3
    assert screen(lab)[0].startswith("not every sweep has succeeded yet")


def test_after_a_run_of_each_it_keeps_up(lab: Lab) -> None:
    lab.send("lobby", "hi")
    clean_all(lab)
    found = stats(lab)
    assert list(found.sweeps) == NAMES
    assert all(0 <= (sweep.success_age or 0) < 5 and sweep.behind == 0 for sweep in found.sweeps.values())
    assert screen(lab)[0] == "keeping up"


@pytest.mark.parametrize(
    ("index", "sweep", "interval"),
    [("updated", "clean_channels", 60), ("sizes", "clean_backlog", 30), ("polled", "clean_clients", 60)],
)
def test_a_sweep_that_stops_is_behind_before_its_second_interval_ends(
    lab: Lab, index: str, sweep: str, interval: float
) -> None:
    clean_all(lab)
    earlier(lab, 1.4 * interval, index)
    assert stats(lab).sweeps[sweep].behind == 0
    earlier(lab, 0.2 * interval, index)
    assert stats(lab).sweeps[sweep].behind == pytest.approx(0.6 * interval, abs=5)
    assert screen(lab)[0].startswith("behind by ")


def test_one_shard_that_is_not_done_is_enough_to_be_behind(lab: Lab) -> None:
    clean_all(lab)
    lab.redis.hincrby("chat:{7}:meta", "done:updated", -600_000)
    assert stats(lab).sweeps["clean_channels"].behind == pytest.approx(540, abs=5)


def test_an_age_limit_needs_a_success_of_its_own(redis: Redis) -> None:
    clean_all(Lab(redis))
    assert stats(Lab(redis, message_timeout=60)).sweeps["clean_backlog"].success_age is None
    clean_all(Lab(redis, message_timeout=60))
    assert stats(Lab(redis, message_timeout=60)).sweeps["clean_backlog"].behind == 0


def test_short_intervals_leave_a_run_the_time_it_takes(redis: Redis) -> None:
    lab = Lab(redis, clean_channels_every=0.1)
    clean_all(lab)
    earlier(lab, LATE_SECONDS - 0.5, "updated")
    assert stats(lab).sweeps["clean_channels"].behind == 0


def test_a_cron_schedule_has_ages_and_no_verdict(redis: Redis) -> None:
    lab = Lab(redis, clean_channels_every="0 3 * * *")
    clean_all(lab)
    sweep = stats(lab).sweeps["clean_channels"]
    assert (sweep.interval, sweep.behind, verdict(sweep)) == (None, None, "by cron")
    earlier(lab, 300_000, "updated")
    assert screen(lab)[0] == "by cron, and the oldest success is 3 days old"


@pytest.mark.parametrize(
    ("clean", "index", "lax"),
    [
        (clean_channels, "updated", {"channel_timeout": 901}),
        (clean_backlog, "sizes", {"backlog": 101}),
        (clean_clients, "polled", {"client_timeout": 301}),
        (clean_channels, "updated", {"dry_run": True}),
    ],
)
def test_a_laxer_run_or_a_dry_one_is_no_success(lab: Lab, clean: Any, index: str, lax: Any) -> None:
    clean(lab.redis, **lax)
    assert stats(lab).sweeps[clean.__name__].success_age is None
    clean(lab.redis)
    assert lab.redis.hexists("chat:{0}:meta", f"done:{index}")


def test_a_stricter_run_is_a_success(lab: Lab) -> None:
    clean_channels(lab.redis, channel_timeout=0)
    assert stats(lab).sweeps["clean_channels"].behind == 0


@pytest.mark.parametrize("clean", ALL)
def test_a_run_that_removes_all_that_is_due_is_a_success(redis: Redis, clean: Any) -> None:
    lab = Lab(redis, shards=1)
    lab.check("bob", "old")
    lab.send_all("old", 105)
    lab.idle("old", 1000)
    lab.away("bob", "old", 1000)
    assert clean(redis, settings=lab.settings).completed
    assert stats(lab).sweeps[clean.__name__].behind == 0


def test_a_run_that_could_not_finish_is_no_success(lab: Lab) -> None:
    lab.send("old", "x")
    lab.idle("old", 1000)
    clean_channels(lab.redis, time_budget=0)
    sweep = stats(lab).sweeps["clean_channels"]
    assert (sweep.success_age, sweep.due, sweep.overdue) == (None, 1, pytest.approx(100, abs=5))
    assert (sweep.last.report["due"], sweep.last.report["completed"]) == (1, False)


def test_a_run_that_could_not_finish_shows_at_once(lab: Lab) -> None:
    clean_all(lab)
    lab.send("old", "x")
    lab.idle("old", 1000)
    clean_channels(lab.redis, time_budget=0)
    assert verdict(stats(lab).sweeps["clean_channels"]) == "left 1 due"
    assert screen(lab)[0] == "not finished: clean_channels"
    clean_channels(lab.redis)
    assert screen(lab)[0] == "keeping up"


@pytest.mark.parametrize("seconds", [2.01, 64.1, 256.4])
def test_a_success_does_not_hang_on_a_rounded_millisecond(redis: Redis, seconds: float) -> None:
    lab = Lab(redis, channel_timeout=seconds, client_timeout=seconds, message_timeout=seconds)
    clean_all(lab)
    assert [sweep.behind for sweep in stats(lab).sweeps.values()] == [0, 0, 0]


def test_a_sweep_of_some_shards_vouches_for_these_only(lab: Lab) -> None:
    clean_channels(lab.redis, shards=[0, 1])
    assert stats(lab).sweeps["clean_channels"].success_age is None
    clean_channels(lab.redis, shards=range(2, 16))
    assert stats(lab).sweeps["clean_channels"].behind == 0


# the record


def test_a_run_leaves_its_report_and_adds_to_the_totals(lab: Lab) -> None:
    lab.send_all("lobby", 105)
    clean_backlog(lab.redis)
    lab.send_all("lobby", 2)
    clean_backlog(lab.redis)
    sweep = stats(lab).sweeps["clean_backlog"]
    assert (sweep.last.report["messages"], sweep.last.messages, sweep.last.runs) == (2, 7, 2)
    assert (sweep.last.failures, sweep.failed_age, sweep.last.error) == (0, None, "")
    assert 0 <= (sweep.ended_age or 0) <= (sweep.started_age or 0) < 5


def test_a_dry_run_leaves_no_record(lab: Lab) -> None:
    for clean in ALL:
        clean(lab.redis, dry_run=True)
    assert not lab.redis.exists("chat:runs")


def test_a_run_that_another_one_left_no_work_leaves_the_record_to_that(lab: Lab) -> None:
    lab.send("old", "x")
    lab.redis.set(lab.key("old", "lease:clean_channels"), "another run")
    assert clean_channels(lab.redis, channel_timeout=0).skipped
    last = stats(lab).sweeps["clean_channels"].last
    assert (last.runs, last.report, last.started_ms is not None) == (0, {}, True)


def test_a_run_that_fails_leaves_its_error(lab: Lab) -> None:
    lab.redis.hset("chat:shards", "no", "string")
    with pytest.raises(ResponseError):
        clean_channels(lab.redis)
    lab.redis.delete("chat:shards")
    sweep = stats(lab).sweeps["clean_channels"]
    assert (sweep.last.runs, sweep.last.failures) == (1, 1)
    assert sweep.last.error.startswith("ResponseError: WRONGTYPE")
    assert any("failed" in line and "WRONGTYPE" in line for line in screen(lab))
    clean_all(lab)
    assert not any("failed" in line for line in screen(lab))


def test_an_error_in_some_shards_shows_until_these_succeed(lab: Lab) -> None:
    clean_all(lab)
    shard = int(lab.key("old", "").split("{")[1].split("}")[0])
    lab.redis.set(lab.key("old", "updated"), "no zset")
    with pytest.raises(ResponseError):
        clean_channels(lab.redis, shards=[shard])
    lab.redis.delete(lab.key("old", "updated"))
    clean_channels(lab.redis, shards=set(range(16)) - {shard})
    assert any("failed" in line for line in screen(lab))
    clean_channels(lab.redis, shards=[shard])
    assert not any("failed" in line for line in screen(lab))


def test_a_damaged_record_is_no_record(lab: Lab) -> None:
    clean_all(lab)
    lab.redis.hset("chat:runs", "clean_backlog:ended", "12 {bad")
    assert stats(lab).sweeps["clean_backlog"].last.report == {}


@pytest.mark.parametrize("value", [b"garbage", b"9" * 5000, b"\xff\xfe \xff", b"12 [1]", b"12 7"])
@pytest.mark.parametrize("name", ["started", "ended", "failed", "runs", "failures", "messages"])
def test_no_damage_of_the_record_keeps_stats_from_being_shown(lab: Lab, name: str, value: bytes) -> None:
    clean_all(lab)
    lab.redis.hset("chat:runs", f"clean_backlog:{name}", value)
    assert screen(lab)
    assert stats(lab).sweeps["clean_channels"].success_age is not None


@pytest.mark.parametrize("clean", ALL)
def test_a_record_of_another_type_ends_no_sweep_and_is_told(lab: Lab, clean: Any) -> None:
    lab.send_all("lobby", 105)
    lab.redis.set("chat:runs", "of others")
    report = clean(lab.redis, settings=lab.settings)
    assert (report.messages, report.completed) == (5 if clean is clean_backlog else 0, True)
    assert report.error.startswith("chat:runs: ResponseError: ")
    assert "the record of the runs is not kept, delete that key" in report.error
    assert lab.redis.get("chat:runs") == b"of others"


@pytest.mark.parametrize("error", [RedisConnectionError, RedisClusterException])
def test_an_error_of_a_run_is_raised_also_where_it_cannot_be_recorded(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    note, failed = record.NOTE_RUN, "the record is away"

    def note_start(client: Any, keys: Any, words: Any) -> None:
        if words[1] != "started":
            raise error(failed)
        note(client, keys, words)

    monkeypatch.setattr(record, "NOTE_RUN", note_start)
    with pytest.raises(SettingsError, match="CHAT_ON_EXPIRE"):
        clean_channels(lab.redis, settings=Settings(on_expire="no_such_module:call"))


@pytest.mark.parametrize("name", ["chat:runs", "chat:{3}:updated", "chat:{3}:polled", "chat:{3}:meta"])
def test_a_key_of_another_type_is_one_error_that_names_the_key(lab: Lab, name: str) -> None:
    lab.redis.set(name, "of others")
    with pytest.raises(
        ResponseError, match=f"^{re.escape(name)} is damaged, must be as the chat wrote it, or deleted: WRONG"
    ):
        stats(lab)


@pytest.mark.parametrize("mark", [b"9999999999999", b"garbage"])
def test_a_success_of_a_clock_far_ahead_is_none(lab: Lab, mark: bytes) -> None:
    clean_all(lab)
    lab.redis.hset(lab.key("lobby", "meta"), "done:updated", mark)
    assert stats(lab).sweeps["clean_channels"].success_age is None
    clean_all(lab)
    assert stats(lab).sweeps["clean_channels"].success_age < 60


def test_a_run_that_was_broken_off_shows(lab: Lab) -> None:
    clean_all(lab)
    ended_ms = int(lab.redis.hget("chat:runs", "clean_channels:ended").split()[0])
    lab.redis.hset("chat:runs", "clean_channels:started", f"{ended_ms + 1} ")
    assert any(line.startswith("  clean_channels: running for") for line in screen(lab))


def test_a_full_redis_still_keeps_the_record(lab: Lab) -> None:
    lab.send_all("lobby", 105)
    lab.redis.config_set("maxmemory", "1")
    try:
        clean_backlog(lab.redis)
    finally:
        lab.redis.config_set("maxmemory", "0")
    sweep = stats(lab).sweeps["clean_backlog"]
    assert (sweep.last.report["messages"], sweep.behind) == (5, 0)


# counts, memory, fullest, queue


def test_counts_are_those_of_what_is_stored(lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.check("bob", "other")
    lab.send_all("lobby", 105)
    lab.send("old", "x")
    lab.idle("old", 901)
    clean_all(lab)
    found = stats(lab)
    assert (found.channels, found.messages, found.clients) == (1, 100, 2)
    assert (found.sent, found.removed) == (106, 6)


def test_messages_over_the_hard_backlog_count_as_removed(redis: Redis) -> None:
    lab = Lab(redis, backlog=2, hard_backlog=3)
    lab.send_all("lobby", 10)
    assert (stats(lab).messages, stats(lab).sent, stats(lab).removed) == (3, 10, 7)


@pytest.mark.parametrize("lost", ["log:", "sizes", "meta", "trimmed"])
def test_an_account_that_a_lost_key_made_wrong_is_right_when_the_shard_is_empty(lab: Lab, lost: str) -> None:
    lab.send_all("lobby", 5)
    lab.check("bob", "lobby")
    lab.redis.delete(lab.key("lobby", lost))
    lab.send_all("lobby", 2)
    lab.check("bob", "lobby")
    assert stats(lab).messages >= 0
    clean_channels(lab.redis, channel_timeout=0)
    clean_clients(lab.redis, client_timeout=0)
    assert (stats(lab).messages, stats(lab).clients) == (0, 0)


def test_an_empty_shard_makes_every_account_right(lab: Lab) -> None:
    lab.send("lobby", "x")
    lab.check("bob", "lobby")
    lab.redis.hincrby(lab.key("lobby", "meta"), "clients", 7)
    lab.redis.hincrby(lab.key("lobby", "meta"), "sent", 7)
    clean_channels(lab.redis, channel_timeout=0)
    clean_clients(lab.redis, client_timeout=0)
    assert (stats(lab).messages, stats(lab).clients) == (0, 0)


def test_a_name_that_is_no_text_is_shown_all_the_same(lab: Lab) -> None:
    lab.redis.zadd("chat:{0}:sizes", {b"\xff\xfe": 101})
    lab.redis.rpush(b"chat:{0}:log:\xff\xfe", *(b"1:1" for _ in range(101)))
    assert read_fullest(lab.redis) == [("\\xff\\xfe", 101)]
    assert clean_backlog(lab.redis, dry_run=True).examples == (("\\xff\\xfe", 1),)


def test_the_log_that_was_lost_counts_as_removed(lab: Lab) -> None:
    lab.send_all("lobby", 5)
    lab.redis.delete(lab.key("lobby", "log:"))
    lab.send("lobby", "next")
    assert stats(lab).messages == 1
    lab.redis.delete(lab.key("lobby", "log:"))
    lab.check("bob", "lobby")
    assert stats(lab).messages == 0


@pytest.mark.parametrize(("clean", "limit"), [(clean_channels, "channel_timeout"), (clean_backlog, "backlog")])
def test_the_log_that_was_lost_counts_as_removed_by_a_sweep(redis: Redis, clean: Any, limit: str) -> None:
    lab = Lab(redis, shards=1)
    lab.send_all("lobby", 5)
    lab.redis.delete(lab.key("lobby", "log:"))
    lab.idle("lobby", 901)
    lab.send("other", "x")
    assert clean(redis, **{limit: 900 if clean is clean_channels else 2}, settings=lab.settings).messages == 0
    assert (stats(lab).messages, stats(lab).removed) == (1, 5)


def test_the_fullest_channels_come_first(lab: Lab) -> None:
    for count in range(1, 15):
        lab.send_all(f"room {count}", count)
    assert read_fullest(lab.redis, 3) == [("room 14", 14), ("room 13", 13), ("room 12", 12)]
    assert len(read_fullest(lab.redis)) == 10


def test_memory_by_kind_is_what_redis_says_of_the_keys(lab: Lab) -> None:
    for number in range(20):
        lab.send_all(f"room {number}", 3)
        lab.check("bob", f"room {number}")
    memory = read_memory(lab.redis)

    def taken(*patterns: str) -> int:
        found = [key for pattern in patterns for key in keys(lab.redis, f"chat:{{*}}:{pattern}")]
        return sum(lab.redis.memory_usage(key) or 0 for key in found)

    assert memory.messages == pytest.approx(taken("log:*"), rel=0.02)
    assert memory.clients == pytest.approx(taken("seen:*", "read:*"), rel=0.02)
    assert memory.indexes == taken("updated", "sizes", "heads", "polled", "trimmed", "meta")
    assert memory.tokens == taken("sent:*")


def test_an_empty_redis_has_stats_too(lab: Lab) -> None:
    assert (stats(lab).channels, read_fullest(lab.redis)) == (0, [])
    assert read_memory(lab.redis) == Memory(messages=0, clients=0, indexes=0, tokens=0)
    assert read_queue(lab.redis) == Queue(waiting=0, unacked=0)
    assert not keys(lab.redis)


@pytest.mark.one_server
def test_a_client_that_decodes_replies_reads_the_same(redis: Redis, lab: Lab) -> None:
    from redis import Redis as Client  # noqa: PLC0415  the fixture's class

    lab.send_all("lobby", 3)
    lab.check("bob", "lobby")
    clean_all(lab)
    with Client(port=redis.get_connection_kwargs()["port"], decode_responses=True) as decoding:
        assert read_fullest(decoding) == [("lobby", 3)]
        assert read_memory(decoding) == read_memory(redis)
        assert read_stats(decoding).shards == read_stats(redis).shards


def test_stats_are_the_same_few_calls_at_any_size(lab: Lab) -> None:
    seen = []
    stats(lab)  # loads its script
    for count in (1, 500):
        for number in range(count):
            lab.send(f"room {number}", "x")
            lab.check("bob", f"room {number}")
        clean_all(lab)
        calls(lab.redis)
        stats(lab)
        seen.append(calls(lab.redis))
    assert seen[0] == seen[1]
    assert not {"keys", "scan", "hgetall"} & seen[0].keys() - {"hgetall"}
    assert seen[0]["hgetall"] == 1


# for people


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"), (0, "0 s"), (0.25, "0.2 s"), (12.4, "12 s"), (119, "119 s"), (180, "3 min"),
        (7200, "2 h"), (1e6, "12 days"),
    ],
)  # fmt: skip
def test_ages_are_short(seconds: float | None, shown: str) -> None:
    assert age(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (1_250_000, "1.2 MB"), (12_345_678, "12 MB"), (3e13, "30.0 TB")],
)
def test_sizes_are_short(count: float, shown: str) -> None:
    assert size(count) == shown


def test_the_screen_fits_a_terminal_and_a_pipe_gets_all_of_it(lab: Lab) -> None:
    name, failure = "\x1b[2J" + "w" * 190, "[red]" + "long " * 50 + "end"
    lab.send(name, "x")
    lab.send("\N{CJK UNIFIED IDEOGRAPH-732B}" * 100, "x")
    lab.send_all("lobby", 1001)
    clean_backlog(lab.redis, backlog=1)
    lab.redis.hset("chat:runs", "clean_backlog:failed", f"99999999999999 {failure}")
    earlier(lab, 1e7, "sizes")
    large = Memory(messages=999 * 10**9, clients=10**8, indexes=10**8, tokens=10**8)
    reading = Reading(stats(lab), large, read_fullest(lab.redis), "broker unreachable")
    for width in (80, 60, 40):
        shown = lines(reading, width)
        assert max(len(line) + sum(east_asian_width(character) == "W" for character in line) for line in shown) <= width
    narrow, wide = ([line.split() for line in lines(reading, width)] for width in (60, 80))
    assert ["sweep", "success", "due", "overdue"] in narrow  # columns are left out, names stay whole
    assert ["sweep", "success", "took", "removed", "due", "overdue"] in wide
    assert {line[0] for line in narrow if line} > {"clean_channels", "clean_backlog", "clean_clients"}
    piped = lines(reading)
    assert "\x1b" not in "".join(piped)
    assert any(line.endswith(f'"\\u001b[2J{"w" * 190}"') for line in piped)
    assert any(line.startswith("  clean_backlog: failed ") and line.endswith(failure) for line in piped)


def test_a_sweep_is_behind_by_what_it_is_late() -> None:
    def behind(age: float, interval: float) -> float | None:
        values: dict[str, Any] = dict.fromkeys(("started_age", "ended_age", "failed_age", "last"))
        return SweepStats(due=0, overdue=0, interval=interval, success_age=age, **values).behind

    assert [behind(89, 60), behind(91, 60), behind(1.9, 1), behind(2.1, 1)] == [0, 31, 0, pytest.approx(1.1)]
