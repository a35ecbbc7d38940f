from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from servers import ROOT, run

from chat import Settings, SettingsError
from chat.settings import DAEMON_NAMES
from chat.store.urls import parse_place

if TYPE_CHECKING:
    from pathlib import Path


def test_the_defaults_are_the_documented_ones() -> None:
    settings = Settings()
    assert (settings.redis_url, settings.shards, settings.backlog) == ("redis://127.0.0.1:6379/0", 16, 100)
    assert (settings.channel_timeout, settings.client_timeout, settings.message_timeout) == (900, 300, 0)


@pytest.mark.parametrize(("backlog", "most"), [(1, 1000), (100, 1000), (101, 1010), (500, 5000)])
def test_a_mistyped_backlog_makes_no_send_drop_messages(backlog: int, most: int) -> None:
    assert Settings(backlog=backlog).hard_backlog == most
    assert Settings(backlog=backlog, hard_backlog=backlog).hard_backlog == backlog


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("CHAT_BACKLOG=7\nCHAT_SHARDS=4\n")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.setenv("CHAT_BACKLOG", "8")
    settings = Settings.from_env()
    assert (settings.backlog, settings.hard_backlog, settings.shards) == (8, 1000, 4)
    monkeypatch.setenv("CHAT_BACKLOG", "")
    assert Settings.from_env().backlog == 7


@pytest.mark.parametrize("program", [["chat", "send", "lobby", "hi"], ["celery", "-A", "tasks", "report"]])
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
    assert Settings.from_env({"REDIS_URL": "", "CHAT_BACKLOG": " "}) == Settings()


def test_settings_of_the_daemon_stop_no_chat() -> None:
    assert Settings.from_env(dict.fromkeys(DAEMON_NAMES, "?")) == Settings()


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
        ("REDIS_URL", "redis://:0:x/", "redis://"),
        ("REDIS_URL", "redis://localhost:1/0?db=1", "redis://"),
        ("REDIS_URL", "redis://localhost:1/zero", "redis://"),
        ("REDIS_URL", "unix:///run/redis.sock?db=x", "redis://"),
        ("CHAT_CHANNEL_TIMEOUT", "1e306", "a number of seconds above 0"),
        ("CHAT_PREFIX", "a{b}", "1 to 50 of letters, digits and _ . : -"),
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


def test_nothing_but_the_settings_reads_the_environment() -> None:
    readers = [
        str(path.relative_to(ROOT))
        for folder in ("chat", "tasks")
        for path in (ROOT / folder).rglob("*.py")
        if "os.environ" in path.read_text()
    ]
    assert readers == ["chat/_environment.py"]


def test_a_place_is_what_redis_py_is_told() -> None:
    place = parse_place("rediss+cluster://me:p%40ss@a:1,b?ssl_cert_reqs=none&ssl_check_hostname=false")
    assert (place.form, place.hosts) == ("cluster", (("a", 1), ("b", 6379)))
    assert place.options == {
        "username": "me", "password": "p@ss", "ssl": True, "ssl_cert_reqs": "none", "ssl_check_hostname": False,
    }  # fmt: skip
    place = parse_place("redis+sentinel://a/chat/2")
    assert (place.hosts, place.service, place.options) == ((("a", 26379),), "chat", {"db": 2})


@pytest.mark.parametrize("url", ["redis://me:secret@a:x", "redis+sentinel://a,b/?sentinel_password=secret"])
def test_no_password_is_shown(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(redis_url=url)
    assert "secret" not in str(caught.value)
