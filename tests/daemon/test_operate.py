"""The commands of an operator beside clean and health: stats and restore, and what all of them share."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from forks import fork_on
from lab import Lab
from servers import Program, Server, clean_environment, eventually, run

from tasks.cleaning import clean_backlog

if TYPE_CHECKING:
    from pathlib import Path

    from redis import Redis

CELERY = ("-m", "celery", "-A", "tasks")
Operate = Callable[..., tuple[int, str, str]]
HOSTILE = "[red]\x1b[2J"


@pytest.fixture
def operate(redis: Redis, server: Server, tmp_path: Path) -> Operate:
    assert not redis.dbsize()

    def operate(*arguments: str, **environment: str) -> tuple[int, str, str]:
        result = run(*CELERY, *arguments, folder=tmp_path, **{"REDIS_URL": server.url} | environment)
        return result.returncode, result.stdout, result.stderr

    return operate


@pytest.fixture
def archived(redis: Redis, tmp_path: Path) -> Lab:
    """A chat of which all but the last two messages of each channel went into an archive."""
    lab = Lab(redis, archive=str(tmp_path / "kept"), backlog=2)
    lab.send_all("lobby", 5)
    lab.send_all("tea", 3)
    clean_backlog(redis, settings=lab.settings)
    return lab


# stats


def test_stats_count_and_say_what_is_overdue(operate: Operate, redis: Redis) -> None:
    lab = Lab(redis)
    lab.check("bob", "lobby")
    lab.send_all("lobby", 101)
    lab.send("old", "x")
    lab.idle("old", 901)
    code, out, _ = operate("stats")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "not every sweep has succeeded yet: do a worker and beat run?"
    assert lines[2] == "channels 2, messages 102 (102 sent), clients 1"
    rows = {line.split()[0]: line.split() for line in lines if line.startswith("clean_")}
    assert [rows[sweep][-3] for sweep in ("clean_channels", "clean_backlog")] == ["1", "-"]
    assert lines[-2:] == ["      101  lobby", "        1  old"]
    total = json.loads(operate("stats", "--json", "--shards")[1])
    assert (total["channels"], total["sweeps"]["clean_channels"]["due"], len(total["shards"])) == (2, 1, 16)
    assert sum(shard["idle"] for shard in total["shards"]) == 1
    assert len(operate("stats", "--shards")[1].splitlines()) == len(lines) + 1 + 1 + 16


def test_names_cannot_steer_a_terminal_and_are_whole_in_a_pipe(operate: Operate, redis: Redis) -> None:
    Lab(redis).send(HOSTILE + "w" * 180, "x")
    for arguments in (("stats",), ("clean", "channels", "--now", "--channel-timeout", "0", "--dry-run")):
        out = operate(*arguments)[1]
        assert f'"[red]\\u001b[2J{"w" * 180}"\n' in out
        assert "\x1b" not in out


@pytest.mark.parametrize("as_json", [False, True])
def test_a_watch_in_a_pipe_appends_until_it_is_interrupted(
    server: Server, redis: Redis, tmp_path: Path, *, as_json: bool
) -> None:
    Lab(redis).send("lobby", "hi")
    words = [*CELERY, "stats", "--watch", "--every", "0.05", *(["--json"] if as_json else [])]
    watch = Program("watch", words, {"REDIS_URL": server.url}, tmp_path).start()
    eventually(lambda: watch.output.count('"channels": 1' if as_json else "channels 1,") > 2)
    assert watch.stop(signal.SIGINT) == 0
    assert "\x1b" not in watch.output
    assert "Traceback" not in watch.output


def shown(server: Server, *arguments: str, **environment: str) -> str:
    """Return what a terminal gets of a watch until its second screen."""
    ours, theirs = pty.openpty()
    ours_and = clean_environment() | {"REDIS_URL": server.url, "TERM": "xterm"} | environment
    process = fork_on(theirs, [*CELERY[1:], *arguments], ours_and)
    seen = b""
    while seen.count(b"fullest") < 2:
        seen += os.read(ours, 4096)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    os.close(ours)
    os.close(theirs)
    return seen.decode()


def test_a_watch_on_a_terminal_stays_in_one_place_and_has_colours_that_can_be_refused(
    server: Server, redis: Redis
) -> None:
    Lab(redis).send(HOSTILE, "x")
    watch = ("stats", "--watch", "--every", "0.05")
    seen = shown(server, *watch)
    assert "\x1b[1A" in seen  # the cursor goes up again
    assert "\x1b[1;33m" in seen  # not every sweep has succeeded yet, in yellow
    assert "\x1b[2J" not in seen
    assert "[red]" in seen
    assert not re.search(r"\x1b\[[\d;]*3\dm", shown(server, *watch, NO_COLOR="1"))


def test_a_watch_outlives_an_outage(server: Server, tmp_path: Path) -> None:
    own = Server(server.engine, tmp_path).start()
    words = [*CELERY, "stats", "--watch", "--every", "0.05"]
    watch = Program("watch", words, {"REDIS_URL": own.url}, tmp_path).start()
    try:
        eventually(lambda: "channels 0," in watch.output)
        own.stop()
        eventually(lambda: f"no Redis at {own.url}: " in watch.output)
        own.start()
        eventually(lambda: "channels 0," in watch.output.rpartition("no Redis")[2])
        assert watch.stop(signal.SIGINT) == 0
    finally:
        watch.stop()
        own.stop()


# restore


def test_an_archive_is_read_back(operate: Operate, archived: Lab) -> None:
    folder, lab = archived.settings.archive, archived
    would = operate("restore", folder, "--channel", "lobby", "--dry-run")
    assert would == (0, "lobby: 3 messages would come back, ids 1 to 3\n", "")
    assert len(lab.chat.read_history("lobby")) == 2
    code, out, err = operate("restore", folder, "--channel", "lobby")
    assert (code, out) == (0, "lobby: 3 messages back, ids 1 to 3\n")
    assert err == "cleaning will remove again what is over the limits: raise them, or read what you need now\n"
    assert [message.id for message in lab.chat.read_history("lobby")] == [1, 2, 3, 4, 5]
    rows = [json.loads(line) for line in operate("restore", folder, "--json")[1].splitlines()]
    assert {row["channel"]: row["messages"] for row in rows} == {"lobby": 0, "tea": 1}


def test_a_misspelt_channel_is_refused_before_any_other_is_restored(operate: Operate, archived: Lab) -> None:
    folder = archived.settings.archive
    says = f"restore: the archive in {folder} has nothing of channel 'typo', must be a name in it\n"
    assert operate("restore", folder, "--channel", "lobby", "--channel", "typo") == (2, "", says)
    assert len(archived.chat.read_history("lobby")) == 2


def test_a_channel_without_messages_of_a_day_has_none_back(operate: Operate, archived: Lab) -> None:
    options = ("--channel", "lobby", "--day", "2020-01-01")
    assert operate("restore", archived.settings.archive, *options) == (0, "lobby: 0 messages back\n", "")


def test_messages_that_are_left_are_exit_code_3(operate: Operate, archived: Lab) -> None:
    archived.redis.flushdb()
    archived.send_all("lobby", 3)
    code, out, _ = operate("restore", archived.settings.archive, "--channel", "lobby")
    assert code == 3
    assert out == "lobby: 0 messages back; 3 are not: their ids mean other messages here\n"


def test_only_days_since_one_are_restored(operate: Operate, archived: Lab) -> None:
    folder, today = archived.settings.archive, datetime.now(UTC).date()
    day = timedelta(days=1)
    for since in (today - 400 * day, today - day):
        assert operate("restore", folder, "--since", str(since), "--dry-run")[1].startswith("lobby: 3 messages would")
    for since in (today + 2 * day, today + 400 * day):
        says = f"restore: nothing in {folder} was sent on or after {since}\n"
        assert operate("restore", folder, "--since", str(since)) == (2, "", says)
    says = f"restore: nothing in {folder} was sent on 2020-01-01, 2020-01-02\n"
    assert operate("restore", folder, "--day", "2020-01-01", "--day", "2020-01-02") == (2, "", says)
    assert len(archived.chat.read_history("lobby")) == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--since", "tea"], "--since is 'tea', must be a date such as 2026-11-24"),
        (["--since", "2026-11-24", "--day", "2026-11-24"], "--since and --day are both given, must be one of them"),
        (["--day", "2026-13-01"], "--day is '2026-13-01', must be a date such as 2026-11-24"),
        ([], "no archive in {}, must be a folder that CHAT_ARCHIVE named"),
    ],
)
def test_bad_input_to_restore_is_one_line(operate: Operate, tmp_path: Path, options: list[str], says: str) -> None:
    assert operate("restore", str(tmp_path), *options) == (2, "", f"restore: {says.format(tmp_path)}\n")


def test_one_of_a_kind_is_said_in_the_singular(operate: Operate, redis: Redis, tmp_path: Path) -> None:
    lab = Lab(redis, archive=str(tmp_path / "kept"), backlog=1)
    lab.send_all("lobby", 2)
    clean_backlog(redis, settings=lab.settings)
    would = operate("restore", str(tmp_path / "kept"), "--dry-run")[1]
    assert would == "lobby: 1 message would come back, ids 1 to 1\n"


# what all of them share


@pytest.mark.parametrize("command", ["restore", "stats", "stats --watch"])
def test_a_command_that_is_interrupted_before_its_end_exits_as_interrupted(archived: Lab, command: str) -> None:
    words = [*command.split(), *([archived.settings.archive] if command == "restore" else [])]
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and answers nothing
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        program = subprocess.Popen(
            [sys.executable, *CELERY, *words],
            env=clean_environment() | {"REDIS_URL": url},
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = silent.accept()
        with connection:
            program.send_signal(signal.SIGINT)
            said = program.communicate(timeout=60)[1]
    assert program.returncode == (0 if "watch" in command else 130)
    assert "Traceback" not in said


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", "| :"])
@pytest.mark.parametrize("command", ["stats", "stats --json", "restore"])
def test_output_that_cannot_be_written_is_one_line(
    server: Server, archived: Lab, command: str, redirection: str
) -> None:
    words = [*command.split(), *([archived.settings.archive] if command == "restore" else []), "--json"]
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f'"$@" {redirection}', "bash", sys.executable, *CELERY, *words],
        env=clean_environment() | {"REDIS_URL": server.url},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if redirection == "| :":
        assert (done.returncode, "Error" in done.stderr) == (0, False)
        return
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"{words[0]}: the output cannot be written: ")
    assert "Traceback" not in done.stderr


def test_an_unreachable_redis_is_one_line(operate: Operate, archived: Lab) -> None:
    for arguments in (["stats"], ["restore", archived.settings.archive]):
        code, out, err = operate(*arguments, REDIS_URL="redis://:secret@127.0.0.1:1/0")
        assert (code, out, len(err.splitlines())) == (1, "", 1)
        assert err.startswith(f"{arguments[0]}: no Redis at redis://...@127.0.0.1:1/0 (")
        assert "secret" not in err


def test_a_bad_option_or_setting_is_exit_code_2(operate: Operate) -> None:
    says = "stats: --every is 0, must be a number of seconds above 0, at most 86400\n"
    assert operate("stats", "--watch", "--every", "0") == (2, "", says)
    says = "stats: --every is given without --watch, must be given with it\n"
    assert operate("stats", "--every", "5") == (2, "", says)
    code, _, err = operate("stats", CHAT_SHARDS="many")
    assert (code, err) == (2, "stats: CHAT_SHARDS is 'many', must be a whole number from 1 to 16384\n")
    code, _, err = operate("stats", CHAT_SHARTS="16")
    assert (code, err.startswith("stats: "), "CHAT_SHARTS" in err) == (0, True, True)


def test_another_number_of_shards_is_a_bad_setting(operate: Operate, archived: Lab) -> None:
    for arguments in (["stats"], ["restore", archived.settings.archive], ["clean", "all", "--now"]):
        code, out, err = operate(*arguments, CHAT_SHARDS="8")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "this process has 8: set CHAT_SHARDS=16" in err


def test_every_celery_command_loads_the_options_and_nothing_that_a_command_does() -> None:
    loaded = "sorted(name for name in sys.modules if name.split('.')[0] in ('rich', 'chat', 'tasks'))"
    code = f"import sys, celery, redis, tasks; before = {loaded}; import tasks.commands"
    code += f"; print(set({loaded}) - set(before))"
    assert run("-c", code).stdout == "{'tasks.commands'}\n"


def test_the_list_of_commands_says_whose_ours_are() -> None:
    listed = run("-m", "celery", "--help").stdout
    for name in ("clean", "health", "restore", "stats"):
        assert re.search(rf"^ +{name} +pollchat: \w+", listed, re.MULTILINE)


@pytest.mark.parametrize("name", ["clean", "health", "restore", "stats"])
def test_help_ends_in_examples_of_options_that_exist(name: str) -> None:
    out = run(*CELERY, name, "--help").stdout
    examples = out.partition("Examples:\n")[2].splitlines()
    assert len(examples) > 1
    for line in examples:
        words = line.partition("#")[0].split()
        assert words[:4] == ["celery", "-A", "tasks", name]
        assert run(*CELERY, *words[3:], "--help").returncode == 0
