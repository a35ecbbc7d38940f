from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from celery.schedules import crontab
from hypothesis import given
from hypothesis import strategies as st
from servers import ROOT, run

import chat
from chat import InvalidArgumentError, SettingsError
from chat.settings import DAEMON_NAMES
from tasks import beat_schedule
from tasks.schedule import celery_url, longest_interval, transport_options
from tasks.settings import Settings, daemon_settings

if TYPE_CHECKING:
    from pathlib import Path

OF_CHAT, NAMES = (
    {field.name: field.metadata["name"] for field in dataclasses.fields(kind)} for kind in (chat.Settings, Settings)
)


def test_the_defaults_are_the_documented_ones() -> None:
    settings = Settings()
    assert (settings.clean_channels_every, settings.clean_backlog_every, settings.clean_clients_every) == (60, 30, 60)
    assert (settings.broker_url, settings.result_url) == (settings.redis_url,) * 2
    assert (settings.clean_parts, settings.archive, settings.on_expire) == (1, "", "")


def test_the_example_file_holds_every_setting_with_its_default() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    given = dict(line.lstrip("#").strip().split("=", 1) for line in lines if re.match(r"#? ?[A-Z_]+=", line))
    assert set(given) == set(NAMES.values())
    assert Settings.from_env(given | {"CHAT_HEARTBEAT_DIR": ""}) == Settings()


def test_chat_knows_the_names_that_only_the_daemon_reads() -> None:
    assert set(DAEMON_NAMES) == set(NAMES.values()) - set(OF_CHAT.values())


def test_settings_of_a_chat_get_the_defaults_of_the_daemon() -> None:
    own = chat.Settings(redis_url="redis://elsewhere", prefix="own", shards=4, backlog=7, hard_backlog=0)
    settings = daemon_settings(own)
    assert settings == Settings(redis_url="redis://elsewhere", prefix="own", shards=4, backlog=7, hard_backlog=0)
    assert {name: getattr(settings, name) for name in OF_CHAT} == {name: getattr(own, name) for name in OF_CHAT}
    assert daemon_settings(None) == Settings()


def test_settings_of_the_daemon_stay_as_they_are() -> None:
    settings = Settings(archive="/kept", clean_parts=2)
    assert daemon_settings(settings) is settings


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("CHAT_BACKLOG", "-1", "a whole number from 1"),
        ("CHAT_BROKER_URL", "amqp://localhost", "redis://"),
        ("CHAT_BROKER_URL", "redis+cluster://a,b", "Celery can use no cluster, nor sentinels with TLS"),
        ("CHAT_RESULT_URL", "rediss+sentinel://a,b/chat", "redis+sentinel://"),
        ("CHAT_CLEAN_BACKLOG_EVERY", "often", "a number of seconds above 0, or a cron expression of five fields"),
        ("CHAT_CLEAN_PARTS", "0", "a whole number from 1"),
        ("CHAT_CLEAN_PARTS", "17", "at most CHAT_SHARDS, 16"),
        ("CHAT_ARCHIVE", "kept", "an absolute path of a folder, or module:function"),
        ("CHAT_ON_EXPIRE", "/kept", "module:function"),
        ("CHAT_HEARTBEAT_DIR", "hearts", "an absolute path"),
    ],
)
def test_a_bad_value_is_one_line_with_the_name_the_value_and_what_is_allowed(
    name: str, value: str, allowed: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({name: value})
    assert re.fullmatch(rf"{name} is '?{re.escape(value)}'?, must be .*{re.escape(allowed)}.*", str(caught.value))


def test_a_working_folder_that_was_deleted_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    says = r"^the working folder cannot be searched for \.env, must be one that exists: No such file or directory$"
    with pytest.raises(SettingsError, match=says):
        Settings.from_env()


def test_no_password_is_shown_where_settings_are_printed() -> None:
    urls = dict.fromkeys(("redis_url", "broker_url", "result_url"), "redis://me:secret@host")
    assert "secret" not in repr(Settings(**urls))
    assert repr(Settings(**urls)).startswith("Settings(redis_url='redis://...@host', prefix='chat'")


def test_the_schedule_has_an_entry_for_each_sweep_that_expires_before_the_next() -> None:
    schedule = beat_schedule(Settings(clean_backlog_every=10))
    assert {entry["task"]: entry["schedule"] for entry in schedule.values()} == {
        "tasks.clean_channels": 60,
        "tasks.clean_backlog": 10,
        "tasks.clean_clients": 60,
    }
    assert all(entry["options"]["expires"] < entry["schedule"] for entry in schedule.values())


def test_settings_without_a_schedule_are_refused() -> None:
    settings: Any = chat.Settings()
    with pytest.raises(InvalidArgumentError, match=r"^settings are a chat\.Settings, must be a tasks\.settings\.Sett"):
        beat_schedule(settings)


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
        "0 0 1 1 1", f"{'9' * 5000} * * * *", f"*/{'9' * 5000} * * * *",
    ],
)  # fmt: skip
def test_a_cron_expression_that_is_none_or_does_not_come_true_in_years_is_one_line(expression: str) -> None:
    with pytest.raises(SettingsError, match=r"^CHAT_CLEAN_CLIENTS_EVERY is '") as caught:
        Settings(clean_clients_every=expression)
    assert "a cron expression of five fields that comes true at least every eight years" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "expression", ["*/2-5 * * * *", "1-5/2/3 * * * *", "0 0 1_5 * *", "0 0 * mon *", "0 0 * * jan"]
)
def test_what_celery_takes_for_another_expression_is_refused(expression: str) -> None:
    crontab.from_string(expression)
    with pytest.raises(SettingsError):
        Settings(clean_clients_every=expression)


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
def test_a_cron_expression_comes_true_within_eight_years_or_is_refused(fields: Any, moment: datetime) -> None:
    moment = moment.replace(year=2000 + moment.year % 400, tzinfo=UTC)
    try:
        Settings(clean_clients_every=" ".join(fields))
    except SettingsError:
        assert not {"*"} >= set(fields[2:])  # every day of the year comes true
        return
    cron = crontab.from_string(" ".join(fields))
    cron.nowfun = lambda: datetime.now(UTC)
    start, delta, _ = cron.remaining_delta(moment)
    assert (start + delta - moment).days <= 8 * 366


@pytest.mark.parametrize("words", [["worker"], ["beat"], ["clean", "all", "--now"]], ids=lambda words: words[0])
def test_a_cron_expression_that_never_comes_true_stops_every_process_with_one_line(words: list[str]) -> None:
    done = run("-m", "celery", "-A", "tasks", *words, CHAT_CLEAN_BACKLOG_EVERY="0 0 29 2 1")
    assert done.returncode != 0
    assert "CHAT_CLEAN_BACKLOG_EVERY is '0 0 29 2 1', must be" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("url", "spelled"),
    [
        ("redis://host:1/2", "redis://host:1/2"),
        ("rediss://host:1/2", "rediss://host:1/2"),
        ("rediss://host:1/2?ssl_cert_reqs=none", "rediss://host:1/2"),
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=0"),
        ("unix:///run/redis.sock?db=3", "redis+socket:///run/redis.sock?virtual_host=3"),
    ],
)
def test_celery_gets_urls_as_it_spells_them(url: str, spelled: str) -> None:
    assert celery_url(url) == spelled


def test_sentinels_are_told_to_celery_in_its_own_words() -> None:
    url = "redis+sentinel://me:p%40ss@a:1,[::1]:2,c/chat/3?sentinel_password=s"
    assert celery_url(url) == (
        "sentinel://me:p%40ss@a:1/3;sentinel://me:p%40ss@[::1]:2/3;sentinel://me:p%40ss@c:26379/3"
    )
    assert transport_options(url) == {"master_name": "chat", "sentinel_kwargs": {"password": "s"}}
    assert celery_url("redis+sentinel://a/chat") == "sentinel://a:26379/0"
    assert transport_options("redis://a") == {}


FOR_THE_CHAT_ONLY = [
    "redis+cluster://:secret@a,b",
    "rediss+cluster://:secret@a,b",
    "rediss+sentinel://:secret@a,b/chat",
]


@pytest.mark.parametrize("url", FOR_THE_CHAT_ONLY)
def test_a_url_that_celery_cannot_use_needs_a_broker_elsewhere_and_settings_need_none(url: str) -> None:
    """Celery would connect to sentinels without TLS, and send the password in clear."""
    settings = Settings(redis_url=url)
    assert (settings.broker_url, settings.result_url) == ("", "")
    settings = Settings(redis_url=url, broker_url="redis://c")
    assert (settings.broker_url, settings.result_url) == ("redis://c", "redis://c")


def test_the_daemon_says_when_the_broker_is_missing() -> None:
    for program, url in zip(("worker", "beat"), FOR_THE_CHAT_ONLY[1:], strict=True):
        done = run("-m", "celery", "-A", "tasks", program, REDIS_URL=url)
        assert done.returncode == 1
        assert done.stderr.strip().splitlines()[-1] == (
            "pollchat: CHAT_BROKER_URL is not set, must be a Redis for Celery's queue, redis://host:port/db say: "
            "REDIS_URL is a cluster or sentinels with TLS, and Celery can use neither"
        )
