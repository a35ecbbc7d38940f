from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from celery.schedules import crontab
from chat._cron import parse_cron
from hypothesis import given
from hypothesis import strategies as st
from servers import ROOT, run

from chat import Settings, SettingsError
from chat.store.urls import parse_place
from tasks import beat_schedule
from tasks.schedule import celery_url, longest_interval, transport_options

if TYPE_CHECKING:
    from pathlib import Path

NAMES = {field.name: field.metadata["name"] for field in dataclasses.fields(Settings)}


def test_the_defaults_are_the_documented_ones() -> None:
    settings = Settings()
    assert (settings.redis_url, settings.shards, settings.backlog) == ("redis://127.0.0.1:6379/0", 16, 100)
    assert (settings.channel_timeout, settings.client_timeout, settings.message_timeout) == (900, 300, 0)
    assert (settings.broker_url, settings.result_url, settings.hard_backlog) == (settings.redis_url,) * 2 + (1000,)


def test_the_example_file_holds_every_setting_with_its_default() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    given = dict(line.lstrip("#").strip().split("=", 1) for line in lines if re.match(r"#? ?[A-Z_]+=", line))
    assert set(given) == set(NAMES.values())
    assert Settings.from_env(given | {"CHAT_HEARTBEAT_DIR": ""}) == Settings()


def test_the_readme_names_every_setting() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [name for name in NAMES.values() if f"`{name}`" not in readme] == []


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("CHAT_BACKLOG=7\nCHAT_SHARDS=4\n")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.setenv("CHAT_BACKLOG", "8")
    settings = Settings.from_env()
    assert (settings.backlog, settings.hard_backlog, settings.shards) == (8, 80, 4)
    monkeypatch.setenv("CHAT_BACKLOG", "")
    assert Settings.from_env().backlog == 7


@pytest.mark.parametrize("program", [["chat", "stats"], ["celery", "-A", "tasks", "report"]])
@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_file_in_another_encoding_is_one_line(tmp_path: Path, program: list[str], encoding: str) -> None:
    (tmp_path / ".env").write_text("CHAT_BACKLOG=7 # für uns\n", encoding)
    done = run("-m", *program, folder=tmp_path)
    assert done.returncode
    says = f"{tmp_path}/.env is no UTF-8, must be text in UTF-8: save it in that encoding"
    assert [line for line in done.stderr.splitlines() if line.endswith(says)] == done.stderr.splitlines()[-1:]
    assert "Traceback" not in done.stderr


def test_a_line_of_the_file_that_sets_nothing_is_named_once(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# ours\nCHAT_BACKLOG: 5\n\nCHAT_SHARDS=4\nREDIS_URL=redis://127.0.0.1:1\n")
    done = run("-m", "chat", "send", "lobby", "hi", folder=tmp_path)
    warning, failure = done.stderr.splitlines()
    assert warning == f"chat: {tmp_path}/.env, line 2 is no NAME=value and does nothing"
    assert failure.startswith("chat: no Redis at redis://127.0.0.1:1 (")


def test_the_defaults_read_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_BACKLOG", "8")
    assert Settings().backlog == 100


def test_an_empty_value_counts_as_not_set() -> None:
    assert Settings.from_env({"CHAT_BROKER_URL": "", "CHAT_BACKLOG": " "}) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("REDIS_URL", "localhost:6379", "must be redis://host:port/db, rediss://host:port/db, unix:///"),
        ("REDIS_URL", "redis+cluster://a,b/1", "redis+cluster://host:port,host:port"),
        ("REDIS_URL", "redis+cluster://", "redis+cluster://"),
        ("REDIS_URL", "redis+cluster://a:x", "redis+cluster://"),
        ("REDIS_URL", "redis+sentinel://a,b", "redis+sentinel://host:port,host:port/service/db"),
        ("REDIS_URL", "redis+sentinel://a/chat/x", "redis+sentinel://"),
        ("REDIS_URL", "redis+sentinel://a/chat?ssl_ca_certs=x", "redis+sentinel://"),
        ("CHAT_BROKER_URL", "redis+cluster://a,b", "Celery has no transport for a cluster"),
        ("CHAT_RESULT_URL", "rediss+sentinel://a,b/chat", "redis+sentinel://"),
        ("REDIS_URL", "redis://:0:x/", "redis://"),
        ("REDIS_URL", "redis://localhost:1/0?db=1", "redis://"),
        ("REDIS_URL", "redis://localhost:1/zero", "redis://"),
        ("REDIS_URL", "unix:///run/redis.sock?db=x", "redis://"),
        ("CHAT_BROKER_URL", "amqp://localhost", "redis://"),
        ("CHAT_CHANNEL_TIMEOUT", "1e306", "a number of seconds above 0"),
        ("CHAT_PREFIX", "a{b}", "1 to 50 of letters, digits and _ . : -"),
        ("CHAT_HEARTBEAT_DIR", "hearts", "an absolute path"),
        ("CHAT_SHARDS", "0", "a whole number from 1 to 16384"),
        ("CHAT_SHARDS", "abc", "a whole number"),
        ("CHAT_SHARDS", "1.5", "a whole number"),
        ("CHAT_MAX_MESSAGE_BYTES", "0", "a whole number"),
        ("CHAT_DEDUPE_SECONDS", "0", "a whole number from 1"),
        ("CHAT_BACKLOG", "-1", "a whole number from 1"),
        ("CHAT_HARD_BACKLOG", "-1", "a whole number from 0"),
        ("CHAT_HARD_BACKLOG", "50", "0 or at least CHAT_BACKLOG, 100"),
        ("CHAT_CHANNEL_TIMEOUT", "0", "a number of seconds above 0"),
        ("CHAT_CLIENT_TIMEOUT", "nan", "a number of seconds above 0"),
        ("CHAT_MESSAGE_TIMEOUT", "-1", "a number of seconds, 0 for off"),
        ("CHAT_CLEAN_BACKLOG_EVERY", "often", "a number of seconds above 0, or a cron expression of five fields"),
        ("CHAT_CLEAN_PARTS", "17", "at most CHAT_SHARDS, 16"),
    ],
)
def test_a_bad_value_is_one_line_with_the_name_the_value_and_what_is_allowed(
    name: str, value: str, allowed: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({name: value})
    assert str(caught.value).startswith(f"{name} is ")
    assert value in str(caught.value)
    assert allowed in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_password_is_not_shown() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"REDIS_URL": "http://me:sec/ret@host/0"})
    assert "ret" not in str(caught.value).split(", must")[0]


@pytest.mark.parametrize("arguments", [{"backlog": "7"}, {"shards": True}, {"channel_timeout": None}, {"prefix": 3}])
def test_values_from_code_are_held_to_the_same_rules(arguments: dict[str, Any]) -> None:
    if arguments == {"backlog": "7"}:
        assert Settings(**arguments).backlog == 7
        return
    with pytest.raises(SettingsError):
        Settings(**arguments)


def test_the_schedule_has_an_entry_for_each_sweep_that_expires_before_the_next() -> None:
    schedule = beat_schedule(Settings(clean_backlog_every=10))
    assert {entry["task"]: entry["schedule"] for entry in schedule.values()} == {
        "tasks.clean_channels": 60,
        "tasks.clean_backlog": 10,
        "tasks.clean_clients": 60,
    }
    assert all(entry["options"]["expires"] < entry["schedule"] for entry in schedule.values())


def test_parts_share_the_shards_among_them() -> None:
    schedule = beat_schedule(Settings(clean_parts=3, shards=8))
    assert len(schedule) == 9
    mine = [entry["kwargs"]["shards"] for entry in schedule.values() if entry["task"] == "tasks.clean_backlog"]
    assert sorted(shard for part in mine for shard in part) == list(range(8))


def test_a_cron_expression_is_a_schedule() -> None:
    entry = beat_schedule(Settings.from_env({"CHAT_CLEAN_CLIENTS_EVERY": "*/5  3 * * *"}))["clean_clients 1/1"]
    assert (entry["schedule"].minute, entry["schedule"].hour) == (set(range(0, 60, 5)), {3})
    assert entry["options"]["expires"] < 60


@pytest.mark.parametrize(
    "expression",
    [
        "* * * * nonday", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 7", "*/0 * * * *",
        "5/2 * * * *", "1-5-7 * * * *", "1, * * * *", "-1 * * * *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 29 2 1",
        "0 0 1 1 1", f"{'9' * 5000} * * * *",
    ],
)  # fmt: skip
def test_a_cron_expression_that_is_none_or_does_not_come_true_in_years_is_one_line(expression: str) -> None:
    with pytest.raises(SettingsError, match=r"^CHAT_CLEAN_CLIENTS_EVERY is '") as caught:
        Settings(clean_clients_every=expression)
    assert "a cron expression of five fields that comes true at least every eight years" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("expression", ["0 0 29 2 *", "0 0 29 2 0-4", "0 0 31 * *", "0 0 29 feb-mar mon", "* * * * *"])
def test_a_cron_expression_that_comes_true_now_and_then_is_a_schedule(expression: str) -> None:
    longest = longest_interval(Settings(clean_clients_every=expression), "clean_clients")
    assert 60 <= longest <= 8.01 * 366 * 86400


CRON_PARTS = [
    st.one_of(
        st.just("*"),
        st.integers(1, high).map("*/{}".format),
        st.integers(low, high).map(str),
        st.tuples(st.integers(low, high), st.integers(low, high)).map("{0[0]}-{0[1]}".format),
        st.tuples(st.integers(low, high), st.integers(low, high), st.integers(1, high)).map(
            "{0[0]}-{0[1]}/{0[2]}".format
        ),
        *([st.sampled_from(names)] if names else []),
    )
    for low, high, names in [
        (0, 59, []), (0, 23, []), (1, 31, []), (1, 12, ["jan", "Feb", "april-june"]), (0, 6, ["sun", "FRI", "fri-mon"]),
    ]
]  # fmt: skip


@given(st.tuples(*(st.lists(part, min_size=1, max_size=3).map(",".join) for part in CRON_PARTS)), st.datetimes())
def test_celery_reads_and_computes_every_cron_expression_as_the_settings_do(fields: Any, moment: datetime) -> None:
    try:
        cron = parse_cron(" ".join(fields))
    except ValueError:
        return
    celerys = crontab.from_string(" ".join(fields))
    assert cron == (
        celerys.minute, celerys.hour, celerys.day_of_month, celerys.month_of_year, celerys.day_of_week,
    )  # fmt: skip
    celerys.nowfun = lambda: datetime.now(UTC)
    start, delta, _ = celerys.remaining_delta(moment.replace(year=2000 + moment.year % 400, tzinfo=UTC))
    due = start + delta
    assert (due - start).days <= 8 * 366
    assert (due.minute in cron[0], due.hour in cron[1], due.day in cron[2], due.month in cron[3]) == (True,) * 4
    assert due.isoweekday() % 7 in cron[4]


@pytest.mark.parametrize("program", ["worker", "beat", "stats"])
def test_a_cron_expression_that_never_comes_true_stops_every_process_with_one_line(program: str) -> None:
    words = ["-m", "chat", "stats"] if program == "stats" else ["-m", "celery", "-A", "tasks", program]
    done = run(*words, CHAT_CLEAN_BACKLOG_EVERY="0 0 29 2 1")
    assert done.returncode != 0
    assert "CHAT_CLEAN_BACKLOG_EVERY is '0 0 29 2 1', must be" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("url", "spelled"),
    [
        ("redis://host:1/2", "redis://host:1/2"),
        ("rediss://host:1/2", "rediss://host:1/2?ssl_cert_reqs=required"),
        ("rediss://host:1/2?ssl_cert_reqs=none", "rediss://host:1/2?ssl_cert_reqs=none"),
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=0"),
        ("unix:///run/redis.sock?db=3", "redis+socket:///run/redis.sock?virtual_host=3"),
    ],
)
def test_celery_gets_urls_as_it_spells_them(url: str, spelled: str) -> None:
    assert celery_url(url) == spelled


def test_nothing_but_the_settings_reads_the_environment() -> None:
    readers = [
        str(path.relative_to(ROOT))
        for folder in ("chat", "tasks")
        for path in (ROOT / folder).rglob("*.py")
        if "os.environ" in path.read_text()
    ]
    assert readers == ["chat/settings.py"]


def test_sentinels_are_told_to_celery_in_its_own_words() -> None:
    url = "redis+sentinel://me:p%40ss@a:1,[::1]:2,c/chat/3?sentinel_password=s"
    assert celery_url(url) == (
        "sentinel://me:p%40ss@a:1/3;sentinel://me:p%40ss@[::1]:2/3;sentinel://me:p%40ss@c:26379/3"
    )
    assert transport_options(url) == {"master_name": "chat", "sentinel_kwargs": {"password": "s"}}
    assert celery_url("redis+sentinel://a/chat") == "sentinel://a:26379/0"
    assert transport_options("redis://a") == {}


def test_a_place_is_what_redis_py_is_told() -> None:
    place = parse_place("rediss+cluster://me:p%40ss@a:1,b?ssl_cert_reqs=none&ssl_check_hostname=false")
    assert (place.form, place.hosts) == ("cluster", (("a", 1), ("b", 6379)))
    assert place.options == {
        "username": "me", "password": "p@ss", "ssl": True, "ssl_cert_reqs": "none", "ssl_check_hostname": False,
    }  # fmt: skip
    place = parse_place("redis+sentinel://a/chat/2")
    assert (place.hosts, place.service, place.options) == ((("a", 26379),), "chat", {"db": 2})


def test_a_cluster_needs_a_broker_elsewhere_and_chatting_needs_none() -> None:
    settings = Settings(redis_url="redis+cluster://a,b")
    assert (settings.broker_url, settings.result_url) == ("", "")
    settings = Settings(redis_url="redis+cluster://a,b", broker_url="redis://c")
    assert (settings.broker_url, settings.result_url) == ("redis://c", "redis://c")


def test_the_daemon_says_when_the_broker_is_missing() -> None:
    for program in ("worker", "beat"):
        done = run("-m", "celery", "-A", "tasks", program, REDIS_URL="redis+cluster://a,b")
        assert done.returncode == 1
        assert done.stderr.strip().splitlines()[-1] == (
            "pollchat: CHAT_BROKER_URL is not set, must be a Redis for Celery's queue, redis://host:port/db say: "
            "REDIS_URL is a cluster, and Celery has no transport for one"
        )


@pytest.mark.parametrize("url", ["redis://me:secret@a:x", "redis+sentinel://a,b/?sentinel_password=secret"])
def test_no_password_is_shown(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(redis_url=url)
    assert "secret" not in str(caught.value)
