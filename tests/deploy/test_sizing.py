"""What a load takes: the figures of memory and network against a real server, the arithmetic, and the command."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
from argparse import Namespace
from typing import TYPE_CHECKING, Any

import pytest
from lab import Lab
from servers import ROOT, Server, eventually, run

from chat import Chat
from chat.store.keys import Keys
from chat.store.nodes import raise_first
from chat.store.scripts import SEND, Call, call_all
from tasks.periodic import TIME_BUDGET
from tasks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from redis import Redis

SCRIPT = ROOT / "deploy" / "sizing.py"
spec = importlib.util.spec_from_file_location("sizing", SCRIPT)
assert spec
assert spec.loader
sizing = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sizing)

KEYS = Keys("chat", 16)
DEFAULTS = {"poll": 5, "body": 100, "name": 10, "engine": "redis", "node_memory": 25e9}
SMALL = {"channels": 1_000_000, "messages": 20, "clients": 2, "rate": 5000}
LAZY = ("lazyfree-lazy-user-del", "lazyfree-lazy-user-flush")
WITHIN = 0.15
TABLE = 0.25  # of one hash table, which doubles when it is full


class Scale:
    """Weighs what is stored in an empty server."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        lab = Lab(redis)
        lab.send("warm", "up")  # loads the scripts
        lab.check("warm", "up")
        redis.flushdb()
        for shard in range(KEYS.shards):
            redis.hset(f"chat:{{{shard}}}:meta", mapping={"floor": 1000, "epoch": "x" * 12})  # ids of four digits

    def used(self) -> int:
        self.redis.connection_pool.disconnect()  # with the buffers of what was sent last
        return int(self.redis.info("memory")["used_memory"])

    def send(self, channels: int, messages: int, body: int, name: int) -> None:
        names = [b"%0*d" % (name, number) for number in range(channels)] * messages
        text = b'"' + b"x" * (body - 2) + b'"'
        calls = [Call(SEND, KEYS.for_send(c), (c, text, os.urandom(12), b"", 0, 86_400_000)) for c in names]
        for start in range(0, len(calls), 1000):
            raise_first(call_all(self.redis, calls[start : start + 1000]))

    def check(self, channels: int, clients: int, name: int) -> None:
        chat, names = Chat(self.redis), [f"{number:0{name}}" for number in range(channels)]
        for client in range(clients):
            for start in range(0, channels, 1000):
                chat.check_many(f"{client:0{name}}", names[start : start + 1000])

    def forget_tokens(self) -> None:
        self.redis.delete(*(f"chat:{{{shard}}}:sent:{window}" for shard in range(KEYS.shards) for window in (0, 1)))


@pytest.fixture
def scale(redis: Redis) -> Iterator[Scale]:
    """A scale that no memory freed later disturbs."""
    before = {name: redis.config_get(name)[name] for name in LAZY}
    for name in LAZY:
        redis.config_set(name, "no")
    eventually(lambda: not redis.info("memory")["lazyfree_pending_objects"])
    yield Scale(redis)
    redis.flushdb()
    for name, value in before.items():
        redis.config_set(name, value)


def size_up(settings: Settings | None = None, **load: Any) -> dict[str, Any]:
    found: dict[str, Any] = sizing.size_up(Namespace(**DEFAULTS | load), settings or Settings())
    return found


def sized(engine: str, **load: Any) -> dict[str, Any]:
    return size_up(**{"channels": 1, "messages": 0, "clients": 0, "rate": 0, "engine": engine} | load)


# the figures


@pytest.mark.parametrize(
    ("channels", "messages", "body", "name"),
    [
        (4000, 1, 100, 10),
        (4000, 1, 2, 40),
        (3000, 10, 100, 10),
        (200, 100, 100, 10),
        (20, 1000, 100, 10),
        (500, 10, 1000, 10),
    ],
)
def test_channels_messages_and_tokens_take_the_memory_that_is_said(
    server: Server, scale: Scale, channels: int, messages: int, body: int, name: int
) -> None:
    before = scale.used()
    scale.send(channels, messages, body, name)
    with_tokens = scale.used()
    scale.forget_tokens()
    stored = scale.used() - before
    said = sized(server.engine, channels=channels, messages=messages, body=body, name=name)
    assert said["memory"]["messages"] + said["memory"]["indexes"] == pytest.approx(stored, rel=WITHIN)
    if channels * messages >= 20_000:  # fewer lie in listpacks
        rate = channels * messages / 2 / Settings().dedupe_seconds
        assert sized(server.engine, rate=rate)["memory"]["tokens"] == pytest.approx(
            with_tokens - stored - before, rel=TABLE
        )


@pytest.mark.parametrize(
    ("channels", "clients", "name"), [(4000, 1, 10), (4000, 1, 40), (4000, 5, 10), (300, 50, 10), (20, 1000, 10)]
)
def test_clients_take_the_memory_that_is_said(
    server: Server, scale: Scale, channels: int, clients: int, name: int
) -> None:
    scale.send(channels, 1, 100, name)
    before = scale.used()
    scale.check(channels, clients, name)
    said = sized(server.engine, channels=channels, clients=clients, name=name)
    assert said["memory"]["clients"] == pytest.approx(scale.used() - before, rel=WITHIN)


def traffic(redis: Redis) -> tuple[int, int]:
    stats = redis.info("stats")
    return stats["total_net_input_bytes"], stats["total_net_output_bytes"]


@pytest.mark.parametrize("messages", [1, 10])
def test_sends_and_checks_take_the_network_that_is_said(server: Server, scale: Scale, messages: int) -> None:
    lab, channels = Lab(scale.redis), [f"{number:010}" for number in range(200)]

    def moved(work: Callable[[str], Any]) -> list[int]:
        first, idle = traffic(scale.redis), traffic(scale.redis)
        for channel in channels:
            work(channel)
        end = traffic(scale.redis)
        return [now - 2 * before + earlier for now, before, earlier in zip(end, idle, first, strict=True)]

    def send(channel: str) -> None:
        for _ in range(messages):
            lab.send(channel, "x" * 98)

    def check(channel: str) -> None:
        lab.check("c" * 10, channel)

    send(channels[0])  # what only the first call does
    for channel in channels:
        check(channel)
    rate = len(channels) * messages
    load = {"channels": len(channels), "clients": 1, "poll": 1}
    sends, checks = sized(server.engine, rate=rate), sized(server.engine, **load)
    both = sized(server.engine, rate=rate, **load)
    assert [sends["bytes_in"], sends["bytes_out"]] == pytest.approx(moved(send), rel=WITHIN)
    assert [checks["bytes_in"], both["bytes_out"] - sends["bytes_out"]] == pytest.approx(moved(check), rel=WITHIN)
    assert [checks["bytes_in"], checks["bytes_out"]] == pytest.approx(moved(check), rel=WITHIN)  # nothing new


# the arithmetic


def test_all_that_is_stored_adds_up() -> None:
    found = size_up(**SMALL)
    memory = sum(found["memory"].values())
    assert memory == pytest.approx(3.6e9, rel=0.02)
    assert [found["maxmemory"], found["machine_memory"]] == pytest.approx([1.25 * memory, 1.875 * memory])
    assert found["checks"] == 400_000


@pytest.mark.parametrize(
    ("load", "settings", "what", "is_now"),
    [
        ({"channels": 2_000_000}, {}, "indexes", 2),
        ({"rate": 10_000}, {}, "tokens", 2),
        ({}, {"dedupe_seconds": 120}, "tokens", 2),
        ({"poll": 10}, {}, "checks", 0.5),
        ({"messages": 40}, {}, "messages", 2),
    ],
)
def test_twice_the_load_takes_twice_of_what_it_touches(
    load: dict[str, Any], settings: dict[str, Any], what: str, is_now: float
) -> None:
    before, after = size_up(**SMALL), size_up(Settings(**settings), **SMALL | load)
    assert (after | after["memory"])[what] == pytest.approx(is_now * (before | before["memory"])[what])


def test_nodes_are_what_memory_or_time_needs_most_of() -> None:
    by_time = size_up(**SMALL)
    assert (by_time["nodes_by_memory"], by_time["nodes"]) == (1, by_time["nodes_by_cpu"])
    by_memory = size_up(**SMALL | {"poll": 200, "node_memory": 1e9})
    assert (by_memory["nodes"], by_memory["nodes_by_memory"]) == (5, 5)
    assert sized("redis")["nodes"] == 1


def test_shards_and_parts_are_powers_of_two_that_the_settings_allow() -> None:
    for channels in (1, 1e5, 1e7, 1e9, 1e12):
        found = size_up(channels=channels, messages=1, clients=1, rate=channels / 300)
        shards, parts = found["shards"], found["parts"]
        Settings(shards=shards, clean_parts=parts)
        assert shards & (shards - 1) == parts & (parts - 1) == 0
        assert shards >= min(16384, 16 if found["nodes"] == 1 else 32 * found["nodes"])


def test_a_task_ends_before_it_is_stopped_and_leaves_half_of_its_interval() -> None:
    for channels in (1e4, 1e6, 1e8):
        for every in (1.0, 60.0, 3600.0):
            settings = Settings(clean_clients_every=every, clean_channels_every=every, clean_backlog_every=every)
            found = size_up(settings, channels=channels, messages=1, clients=3, rate=channels / 100)
            for sweep in found["sweeps"].values():
                assert sweep["seconds"] <= min(sizing.LONGEST_RUN, sweep["every"] / 2)
                assert sweep["every"] <= every
    assert sizing.LONGEST_RUN < TIME_BUDGET


def test_a_cron_expression_counts_as_the_default_interval() -> None:
    found = size_up(Settings(clean_backlog_every="*/5 * * * *"), **SMALL)
    assert found["sweeps"]["clean_backlog"]["every"] == 30


@pytest.mark.parametrize(
    ("load", "says"),
    [
        ({}, None),
        ({"body": 70_000}, "messages over CHAT_MAX_MESSAGE_BYTES, 65,536, are refused"),
        ({"messages": 101}, "a channel keeps CHAT_BACKLOG, 100 messages: the others go"),
        ({"rate": 100}, "100 sends a second keep 90,000 channels alive: the others go"),
        ({"poll": 300}, "clients are forgotten after CHAT_CLIENT_TIMEOUT, 300 s: poll more often"),
        ({"channels": 10, "clients": 1e5}, "one channel alone takes 20.8 cores, and lies on one node"),
        ({"channels": 1e8, "rate": 1e6}, "3,308 nodes are more than a cluster's 1,000: check less often"),
        ({"channels": 1e12, "rate": 1e10}, "16,384 parts fall behind: clean_"),
    ],
)
def test_what_is_beyond_reason_is_said_in_a_line(load: dict[str, Any], says: str | None) -> None:
    warnings = size_up(**SMALL | load)["warnings"]
    assert any(line.startswith(says) for line in warnings) if says else warnings == []
    assert all(len(line) <= 78 for line in warnings)


# the command


def command(folder: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    result = run(str(SCRIPT), *arguments, folder=folder, **environment)
    return result.returncode, result.stdout, result.stderr


def test_the_table_fits_a_terminal_and_needs_no_redis(tmp_path: Path) -> None:
    sizes = ("10k", "1M", "100M")
    code, out, err = command(
        tmp_path, "--channels", *sizes, "--poll", "30", "--messages", "101", REDIS_URL="redis://127.0.0.1:1/0"
    )
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split() == ["channels", "10,000", "1,000,000", "100,000,000"]
    assert max(map(len, out.splitlines())) <= 80
    assert "\n10,000 channels: a channel keeps CHAT_BACKLOG, 100 messages: the others go\n" in out


def test_a_python_without_the_packages_is_told_which_one_has_them(tmp_path: Path) -> None:
    done = run("-I", "-S", str(SCRIPT), "--channels", "1", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.endswith(": run ./deploy/up once, then .venv/bin/python deploy/sizing.py ...\n")


def test_messages_default_to_the_backlog(tmp_path: Path) -> None:
    assert json.loads(command(tmp_path, "--channels", "1", "--json", CHAT_BACKLOG="7")[1])["load"]["messages"] == 7


def test_sizing_as_json_is_one_object_a_line(tmp_path: Path) -> None:
    code, out, _ = command(tmp_path, "--channels", "10k", "1.5M", "--json", "--engine", "valkey")
    found = [json.loads(line) for line in out.splitlines()]
    assert (code, [one["load"]["channels"] for one in found]) == (0, [10_000, 1_500_000])
    assert found[1]["sweeps"].keys() == {"clean_channels", "clean_backlog", "clean_clients"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--channels", "many"], "argument --channels: invalid number value: 'many'"),
        (["--channels", "nan"], "argument --channels: invalid number value: 'nan'"),
        (["--channels", "0"], "--channels and --poll must be above 0"),
        (["--channels", "1", "--rate", "-1"], "argument --rate"),
        (["--channels", "1", "--engine", "mysql"], "argument --engine: invalid choice: 'mysql'"),
    ],
)
def test_bad_input_to_sizing_is_refused_with_its_name(tmp_path: Path, arguments: list[str], says: str) -> None:
    code, out, err = command(tmp_path, *arguments)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"sizing.py: error: {says}")


def test_a_bad_setting_is_said_in_a_line(tmp_path: Path) -> None:
    code, _, err = command(tmp_path, "--channels", "1", CHAT_BACKLOG="many")
    assert (code, err.splitlines()[-1].startswith("sizing.py: error: CHAT_BACKLOG is 'many'")) == (2, True)


def test_a_readme_shows_what_sizing_prints(tmp_path: Path) -> None:
    pages = "".join(path.read_text() for path in [ROOT / "README.md", *ROOT.glob("*/README.md")])
    shown = re.findall(r"^\$ python deploy/sizing.py (.*)\n((?:(?!```).*\n)+)```", pages, re.MULTILINE)
    assert shown
    for arguments, output in shown:
        assert command(tmp_path, *shlex.split(arguments))[1] == output
