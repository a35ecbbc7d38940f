from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from servers import Server, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab import Lab
    from redis import Redis

Clean = tuple[int, str, str]


@pytest.fixture
def clean(redis: Redis, server: Server) -> Callable[..., tuple[int, str, str]]:
    assert not redis.dbsize()

    def clean(*arguments: str, **environment: str) -> tuple[int, str, str]:
        result = run("-m", "celery", "-A", "tasks", "clean", *arguments, **{"REDIS_URL": server.url} | environment)
        return result.returncode, result.stdout, result.stderr

    return clean


def test_all_three_run_by_the_settings_without_broker_or_worker(clean: Callable[..., Clean], lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.send_all("lobby", 101)
    lab.send("old", "x")
    lab.idle("old", 901)
    lab.away("bob", "lobby", 301)
    code, out, err = clean("all", "--now")
    assert (code, err) == (0, "")
    backlog, channels, clients = out.splitlines()
    assert backlog.startswith("clean_backlog: removed 1 messages in")
    assert channels.startswith("clean_channels: removed 1 channels, 1 messages in")
    assert clients.startswith("clean_clients: removed 1 clients in")
    assert not lab.redis.keys("chat:celery:*")


def test_a_dry_run_says_what_would_go(clean: Callable[..., Clean], lab: Lab) -> None:
    lab.send_all("lobby", 3)
    code, out, _ = clean("backlog", "--now", "--backlog", "1", "--dry-run", "--json")
    report = json.loads(out)
    assert (code, report["messages"], report["dry_run"]) == (0, 2, True)
    assert lab.redis.llen(lab.key("lobby", "log:")) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["backlog", "--now", "--backlog", "-1"], "clean: backlog is -1, must be a whole number of at least 0"),
        (["backlog", "--now", "--backlog", "x"], "'x' is not a valid integer"),
        (["channels", "--now", "--channel-timeout", "nan"], "clean: channel_timeout is nan"),
        (["backlog"], "Missing option '--now'"),
        (["everything", "--now"], "No such command"),
    ],
)
def test_a_bad_option_is_exit_code_2_and_removes_nothing(
    clean: Callable[..., Clean], lab: Lab, arguments: list[str], says: str
) -> None:
    lab.send_all("lobby", 3)
    code, out, err = clean(*arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert lab.redis.llen(lab.key("lobby", "log:")) == 3


def test_a_shard_held_by_another_run_is_exit_code_4(clean: Callable[..., Clean], lab: Lab) -> None:
    lab.send("old", "x")
    lab.redis.set(lab.key("old", "lease:clean_channels"), "another run")
    code, out, _ = clean("channels", "--now", "--channel-timeout", "0")
    assert code == 4
    assert "already running in 1 shards" in out


def test_an_unreachable_redis_is_one_line(clean: Callable[..., Clean]) -> None:
    code, out, err = clean("all", "--now", REDIS_URL="redis://127.0.0.1:1/0")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "Connection refused" in err
