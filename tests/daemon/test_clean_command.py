from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from forks import fork_on
from guard import forget, watch
from lab import Lab
from redis.exceptions import OutOfMemoryError
from servers import Program, Server, clean_environment, eventually, run, worker

from tasks.commands import clean as command
from tasks.commands import clean_command
from tasks.commands.console import FAILED
from tasks.stats.figures import Stats, read_stats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from redis import Redis

Clean = tuple[int, str, str]


def stats_of(lab: Lab) -> Stats:
    return read_stats(lab.redis, settings=lab.settings)


@pytest.fixture
def clean(redis: Redis, server: Server) -> Callable[..., Clean]:
    assert not redis.dbsize()
    return cleaner(server)


def cleaner(server: Server) -> Callable[..., Clean]:
    def clean(*arguments: str, **environment: str) -> Clean:
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
    head, *rows = (line.split() for line in out.splitlines())
    assert head == ["sweep", "outcome", "channels", "messages", "clients", "due", "overdue", "took"]
    assert [row[:7] for row in rows] == [
        ["clean_backlog", "done", "0", "1", "0", "0", "-"],
        ["clean_channels", "done", "1", "1", "0", "0", "-"],
        ["clean_clients", "done", "0", "0", "1", "0", "-"],
    ]
    assert not lab.redis.keys("chat:celery:*")


def test_a_dry_run_says_what_would_go(clean: Callable[..., Clean], lab: Lab) -> None:
    lab.send_all("lobby", 3)
    code, out, _ = clean("backlog", "--now", "--backlog", "1", "--dry-run", "--json")
    report = json.loads(out)
    assert (code, report["messages"], report["dry_run"], report["examples"]) == (0, 2, True, [["lobby", 2]])
    assert lab.redis.llen(lab.key("lobby", "log:")) == 3


def test_a_dry_run_names_the_ten_that_would_lose_most(clean: Callable[..., Clean], lab: Lab) -> None:
    for count in range(2, 14):
        lab.send_all(f"room {count}", count)
    _, out, _ = clean("backlog", "--now", "--backlog", "1", "--dry-run")
    assert out.splitlines()[2:] == [f"{count - 1:>14} messages of room {count}" for count in range(13, 3, -1)]
    lab.send("steer\x1b[2J", "x")
    assert "\x1b" not in clean("channels", "--now", "--channel-timeout", "0", "--dry-run")[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["backlog", "--now", "--backlog", "-1"], "clean: --backlog is -1, must be a whole number of at least 0"),
        (["backlog", "--now", "--backlog", "x"], "'x' is not a valid integer"),
        (["channels", "--now", "--channel-timeout", "nan"], "clean: --channel-timeout is nan, must"),
        (["backlog", "--backlog", "-1"], "clean: --backlog is -1, must be a whole number of at least 0"),
        (["all", "--shard", "16"], "clean: --shard is 16, must be a whole number from 0 to 15"),
        (
            ["all", "--now", "--shard", "1", "--shard", "-1"],
            "clean: --shard is -1, must be a whole number from 0 to 15",
        ),
        (["channels", "--client-timeout", "1"], "No such option"),
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
    assert out.splitlines()[1].split()[:2] == ["clean_channels", "busy"]


def test_without_a_worker_it_says_so_and_leaves_nothing_in_the_queue(clean: Callable[..., Clean], lab: Lab) -> None:
    lab.send("old", "x")
    code, out, err = clean("channels", "--channel-timeout", "0")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert err.startswith("clean: no worker answers: start one (celery -A tasks worker), or use --now")
    assert lab.redis.llen("chat:celery:pollchat") == 0
    assert lab.redis.exists(lab.key("old", "log:"))


# Hands its channels over until it has had 40, then waits for a file.
HELD = """
import pathlib, time

taken = []

def keep(channel, messages):
    taken.append(channel)
    if len(taken) == 60:  # of the second batch
        pathlib.Path("held").touch()
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
"""


@pytest.mark.slow
def test_a_worker_that_is_killed_in_the_middle_of_a_sweep_died_and_what_went_is_told(
    server: Server, redis: Redis, tmp_path: Path
) -> None:
    lab = Lab(redis, shards=1)
    for number in range(100):
        lab.send_all(f"room {number}", 3)
    (tmp_path / "held.py").write_text(HELD)
    settings = {"REDIS_URL": server.url, "CHAT_SHARDS": "1", "CHAT_ARCHIVE": "held:keep"}
    consumer = worker(tmp_path, settings, "doomed").start()
    try:
        eventually(lambda: "ready." in consumer.output)
        terminal = Terminal(server, "backlog", "--backlog", "1", "--yes", **settings)
        eventually((tmp_path / "held").exists)
        terminal.until("clean_backlog")
        assert consumer.process
        os.killpg(consumer.process.pid, signal.SIGKILL)
        terminal.until("no news for")
        terminal.until("run it again for the rest")
        assert terminal.end() == 1
    finally:
        consumer.stop(signal.SIGKILL)
    gone = stats_of(lab).removed
    assert 0 < gone < 200
    assert re.search(
        rf"clean: doomed@\S+ died or is cut off, at \d+ of 100 channels; {gone} messages were removed", terminal.seen
    )
    assert "nothing was done" not in terminal.seen
    assert "Exception ignored" not in terminal.seen


class Terminal:
    """The command as a person runs it: input, output and errors are a terminal."""

    def __init__(self, server: Server, *arguments: str, **environment: str) -> None:
        self.seen, (self.ours, self.theirs) = "", pty.openpty()
        words = ["celery", "-A", "tasks", "clean", *arguments]
        self.process = fork_on(self.theirs, words, clean_environment() | {"REDIS_URL": server.url} | environment)
        watch(self.process)

    def until(self, text: str) -> None:
        def there() -> bool:
            if select.select([self.ours], [], [], 0)[0]:
                self.seen += os.read(self.ours, 4096).decode()
            return text in self.seen

        eventually(there)

    def answer(self, line: str) -> int:
        os.write(self.ours, f"{line}\n".encode())
        return self.end()

    def interrupt(self) -> int:
        """Send Ctrl-C, and again where the first came just before it began to read."""
        for _ in range(3):
            self.process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(15)
                break
        return self.end()

    def end(self) -> int:
        code = self.process.wait(60)
        forget(self.process)
        while select.select([self.ours], [], [], 0)[0]:
            self.seen += os.read(self.ours, 4096).decode()
        os.close(self.ours)
        os.close(self.theirs)
        return code


@pytest.mark.parametrize(
    ("arguments", "asks"),
    [
        (["channels", "--channel-timeout", "0"], "clean_channels would remove 4 of 4 channels and 10 of 10 messages"),
        (["backlog", "--backlog", "1"], "clean_backlog would remove 0 of 4 channels and 6 of 10 messages"),
    ],
)
def test_on_a_terminal_it_asks_before_more_than_half_goes(
    server: Server, lab: Lab, arguments: list[str], asks: str
) -> None:
    for channel, count in (("a", 1), ("b", 1), ("c", 1), ("d", 7)):
        lab.send_all(channel, count)
    refused = Terminal(server, *arguments, "--now")
    refused.until(asks)
    refused.until("Go on?")
    assert refused.answer("n") == 1
    assert "clean: not confirmed, nothing was removed" in refused.seen
    interrupted = Terminal(server, *arguments, "--now")
    interrupted.until("Go on?")
    assert interrupted.interrupt() == 130
    assert "Aborted!" not in refused.seen + interrupted.seen
    assert lab.redis.llen(lab.key("d", "log:")) == 7
    agreed = Terminal(server, *arguments, "--now")
    agreed.until("Go on?")
    assert agreed.answer("y") == 0
    assert lab.redis.llen(lab.key("d", "log:")) < 2


def test_it_asks_about_what_all_three_remove_together(server: Server, lab: Lab) -> None:
    lab.send_all("a", 120)
    for channel in ("b", "c"):
        lab.send_all(channel, 26)
        lab.idle(channel, 901)
    terminal = Terminal(server, "all", "--now")
    terminal.until("clean_channels would remove 2 of 3 channels and 52 of 172 messages")
    terminal.until("Go on?")
    assert terminal.answer("n") == 1
    assert stats_of(lab).messages == 172


def test_with_yes_or_for_less_than_half_it_does_not_ask(server: Server, lab: Lab) -> None:
    lab.send_all("a", 3)
    lab.send_all("b", 4)
    for arguments in (["--backlog", "3"], ["--backlog", "0", "--yes"]):
        terminal = Terminal(server, "backlog", *arguments, "--now")
        terminal.until("clean_backlog  done")
        assert terminal.end() == 0
        assert "Go on?" not in terminal.seen
    assert lab.redis.llen(lab.key("a", "log:")) == 0


def test_on_a_narrow_terminal_a_report_is_a_sentence(server: Server, lab: Lab) -> None:
    lab.send_all("a", 3)
    for columns, shown in (("78", "clean_backlog: would remove 1 message in "), ("79", "clean_backlog  would go ")):
        terminal = Terminal(server, "backlog", "--backlog", "2", "--now", "--dry-run", COLUMNS=columns)
        terminal.until(shown)
        assert terminal.end() == 0
        assert "1 message of a" in terminal.seen


def test_on_a_terminal_a_long_run_shows_how_far_it_is(server: Server, lab: Lab) -> None:
    lab.fill("a", 10_050)
    terminal = Terminal(server, "backlog", "--now", "--yes")
    terminal.until("100%")
    assert terminal.end() == 0


def test_a_full_redis_is_told_with_the_way_out(clean: Callable[..., Clean], lab: Lab) -> None:
    lab.redis.config_set("maxmemory", "1")
    try:
        assert clean("clients") == (
            1,
            "",
            "clean: Redis is full and takes no task: use --now to clean in this process\n",
        )
        assert clean("clients", "--now")[0] == 0
    finally:
        lab.redis.config_set("maxmemory", "0")


def test_what_a_full_redis_refuses_to_a_cleaning_in_this_process_is_not_answered_with_the_same_way_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        message = "command not allowed when used memory > 'maxmemory'."
        raise OutOfMemoryError(message)

    monkeypatch.setattr(command, "run_sweep", refused)
    with pytest.raises(SystemExit) as ended:
        clean_command(["backlog", "--now", "--yes"], obj=SimpleNamespace(app=None))
    assert ended.value.code == FAILED
    said = capsys.readouterr().err
    assert "Redis is full and refused the cleaning (command not allowed" in said
    assert "raise maxmemory" in said
    assert "--now" not in said


def test_an_unreachable_redis_is_one_line(clean: Callable[..., Clean]) -> None:
    code, out, err = clean("all", "--now", REDIS_URL="redis://127.0.0.1:1/0")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert err.startswith("clean: no Redis at redis://127.0.0.1:1/0 (")
    assert err.endswith("Connection refused): start one (a checkout has ./deploy/up), or set REDIS_URL\n")
    code, out, err = clean("all", CHAT_BROKER_URL="redis://:secret@127.0.0.1:1/5")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert err.startswith("clean: no Redis at redis://...@127.0.0.1:1/5 (")


def redirected(server: Server, redirection: str, *arguments: str) -> tuple[int, str]:
    """Run it with a redirection of the shell; return its exit code and what it wrote to stderr."""
    result = subprocess.run(
        [
            *["bash", "-o", "pipefail", "-c", f'"$@" {redirection}', "bash"],
            *[sys.executable, "-m", "celery", "-A", "tasks", "clean", *arguments],
        ],
        env=clean_environment() | {"REDIS_URL": server.url},
        stderr=subprocess.PIPE,
        text=True,
        timeout=110,
        check=False,
    )
    return result.returncode, result.stderr


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
@pytest.mark.parametrize("options", [["--dry-run"], ["--json"]])
def test_a_report_that_cannot_be_written_is_one_line(
    server: Server, lab: Lab, redirection: str, options: list[str]
) -> None:
    lab.send("lobby", "x")
    code, err = redirected(server, redirection, "all", "--now", *options)
    reason = "No space left on device" if "full" in redirection else "Bad file descriptor"
    assert (code, err) == (1, f"clean: clean_backlog ran, but its report could not be written: {reason}\n")


def test_all_sweeps_run_although_nobody_reads_their_reports(server: Server, lab: Lab) -> None:
    lab.send_all("lobby", 101)
    lab.send("old", "x")
    lab.idle("old", 901)
    assert redirected(server, "| true", "all", "--now") == (0, "")
    assert (stats_of(lab).channels, stats_of(lab).messages) == (1, 100)


def test_one_message_that_would_go_is_said_in_the_singular(clean: Callable[..., Clean], lab: Lab) -> None:
    lab.send_all("lobby", 2)
    assert clean("backlog", "--now", "--backlog", "1", "--dry-run")[1].endswith(" 1 message of lobby\n")


@pytest.fixture(scope="class")
def working(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    consumer = worker(tmp_path_factory.mktemp("clean"), {"REDIS_URL": server.url}).start()
    eventually(lambda: "ready." in consumer.output)
    yield consumer
    assert consumer.stop() == 0


@pytest.mark.slow
@pytest.mark.xdist_group("through a worker")
@pytest.mark.usefixtures("working")
class TestThroughAWorker:
    def test_it_brings_the_reports_home(self, server: Server, lab: Lab, working: Program) -> None:
        clean = cleaner(server)
        lab.send_all("lobby", 105)
        lab.send("old", "x")
        lab.idle("old", 901)
        code, out, err = clean("all")
        assert (code, err) == (0, "")
        rows = [line.split() for line in out.splitlines()]
        assert [row[:4] for row in rows[1:3]] == [
            ["clean_backlog", "done", "0", "5"],
            ["clean_channels", "done", "1", "1"],
        ]
        assert "clean_backlog: removed 5 messages in" in working.output

    def test_a_dry_run_says_the_same_as_in_this_process(self, server: Server, lab: Lab) -> None:
        clean = cleaner(server)
        lab.send_all("lobby", 105)
        reports = [json.loads(clean("backlog", "--dry-run", "--json", *now)[1]) for now in ([], ["--now"])]
        assert {**reports[0], "seconds": 0} == {**reports[1], "seconds": 0}
        assert (reports[0]["messages"], reports[0]["examples"]) == (5, [["lobby", 5]])
        assert lab.redis.llen(lab.key("lobby", "log:")) == 105

    def test_every_override_reaches_it(self, server: Server, lab: Lab) -> None:
        clean = cleaner(server)
        for number in range(20):
            lab.send(f"room {number}", "x")
        shard = lab.key("room 3", "").split("{")[1].split("}")[0]
        code, out, _ = clean("channels", "--channel-timeout", "0", "--shard", shard, "--json")
        assert (code, 0 < json.loads(out)["channels"] < 20) == (0, True)
        assert not lab.traces("room 3")

    def test_a_shard_that_another_run_holds_is_exit_code_4(self, server: Server, lab: Lab) -> None:
        clean = cleaner(server)
        lab.send("old", "x")
        lab.redis.set(lab.key("old", "lease:clean_channels"), "another run")
        assert clean("channels", "--channel-timeout", "0")[0] == 4

    def test_a_task_that_fails_is_exit_code_1(self, server: Server, lab: Lab) -> None:
        clean = cleaner(server)
        lab.redis.set("chat:runs", "no hash")
        code, out, err = clean("channels", "--channel-timeout", "0")
        assert (code, out, len(err.splitlines())) == (1, "", 1)
        assert "WRONGTYPE" in err

    def test_no_queue_of_answers_stays(self, server: Server, lab: Lab, tmp_path: Path) -> None:
        second = worker(tmp_path, {"REDIS_URL": server.url}, "second").start()
        eventually(lambda: "ready." in second.output)
        assert cleaner(server)("clients")[0] == 0
        second.stop()
        assert not lab.redis.keys("*reply*")

    def test_a_task_called_as_a_function_needs_no_worker(self, server: Server, lab: Lab) -> None:
        lab.send_all("lobby", 3)
        code = "import tasks.periodic as t; print(t.clean_backlog(backlog=1)['messages'])"
        assert run("-c", f"import tasks; tasks.app.set_current(); {code}", REDIS_URL=server.url).stdout == "2\n"

    def test_progress_comes_through(self, server: Server, lab: Lab) -> None:
        lab.fill("a", 10_050)
        terminal = Terminal(server, "backlog", "--yes")
        terminal.until("100%")
        assert terminal.end() == 0
