from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from lab import Lab
from servers import Program, Server, clean_environment, eventually, run

from chat.screen import printable

if TYPE_CHECKING:
    from pathlib import Path

    from redis import Redis


class Shell:
    """Runs the chat command as its own process, in a folder of its own."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.folder = folder
        self.environment = {"REDIS_URL": server.url}

    def __call__(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        result = run("-m", "chat", *arguments, folder=self.folder, **self.environment | environment)
        return result.returncode, result.stdout, result.stderr

    def redirected(self, redirection: str, *arguments: str) -> tuple[int, str]:
        """Run it with a redirection of the shell; return its exit code and what it wrote to stderr."""
        result = subprocess.run(
            ["bash", "-c", f'exec "$@" {redirection}', "bash", sys.executable, "-m", "chat", *arguments],
            env=clean_environment() | self.environment,
            cwd=self.folder,
            stderr=subprocess.PIPE,
            text=True,
            timeout=110,
            check=False,
        )
        return result.returncode, result.stderr


@pytest.fixture
def shell(redis: Redis, server: Server, tmp_path: Path) -> Shell:
    assert not redis.dbsize()
    return Shell(server, tmp_path)


def test_a_newcomer_sends_and_reads_at_once(shell: Shell) -> None:
    assert shell("send", "lobby", "hi") == (0, "1\n", "")
    code, out, err = shell("check", "bob", "lobby")
    assert (code, out.split("  ")[0], out.split("  ")[2]) == (0, "1", "hi\n")
    assert err == "bob is new in lobby\n"
    assert shell("check", "bob", "lobby") == (0, "", "nothing new\n")


def test_limit_and_what_is_waiting(shell: Shell, redis: Redis) -> None:
    lab = Lab(redis)
    lab.check("bob", "lobby")
    lab.send_all("lobby", 3)
    code, out, err = shell("check", "bob", "lobby", "--limit", "2")
    assert (code, len(out.splitlines()), err) == (0, 2, "more are waiting\n")


def test_missed_messages_are_said(shell: Shell, redis: Redis) -> None:
    lab = Lab(redis, backlog=1, hard_backlog=1)
    lab.check("bob", "lobby")
    lab.send_all("lobby", 3)
    assert shell("check", "bob", "lobby")[2] == "2 messages were cleaned away unread\n"


def test_json_is_one_object_for_scripts(shell: Shell) -> None:
    shell("send", "lobby", "hi")
    code, out, err = shell("check", "bob", "lobby", "--json")
    check = json.loads(out)
    assert (code, err) == (0, "")
    assert check["messages"][0] | {"sent_at": ""} == {"id": 1, "sent_at": "", "body": "hi"}
    assert (check["new"], check["missed"], check["more"]) == (True, 0, False)
    assert check["cursor"].endswith("-1")


def test_watch_prints_what_comes_until_it_is_interrupted(shell: Shell, redis: Redis, tmp_path: Path) -> None:
    arguments = ["-m", "chat", "watch", "bob", "lobby", "--every", "0.05"]
    watch = Program("watch", arguments, shell.environment, tmp_path).start()
    eventually(lambda: "bob is new" in watch.output)
    Lab(redis).send_all("lobby", 2)
    eventually(lambda: "m2" in watch.output)
    assert watch.stop(signal.SIGINT) == 0
    assert "Traceback" not in watch.output


@pytest.mark.parametrize("command", ["send lobby x", "history lobby", "watch bob lobby"])
def test_a_command_that_is_interrupted_before_its_end_exits_as_interrupted(tmp_path: Path, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and answers nothing
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        program = Program("chat", ["-m", "chat", *command.split()], {"REDIS_URL": url}, tmp_path).start()
        connection, _ = silent.accept()
        with connection:
            assert program.stop(signal.SIGINT) == (0 if "watch" in command else 130)
    assert "Traceback" not in program.output


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", "<&- >&-"])
def test_a_message_whose_id_cannot_be_written_is_said_to_be_stored(
    shell: Shell, redis: Redis, redirection: str
) -> None:
    code, err = shell.redirected(redirection, "send", "lobby", "hi")
    reason = "No space left on device" if "full" in redirection else "Bad file descriptor"
    assert (code, err) == (1, f"chat: stored as 1, but its id could not be written: {reason}\n")
    assert redis.llen(Lab(redis).key("lobby", "log:")) == 1


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
@pytest.mark.parametrize("command", [["history", "lobby"], ["channels"], ["--help"]])
def test_output_that_cannot_be_written_is_no_bad_input(shell: Shell, command: list[str], redirection: str) -> None:
    shell("send", "lobby", "hi")
    code, err = shell.redirected(redirection, *command)
    assert (code, err.splitlines()[-1].split(": ")[:2]) == (1, ["chat", "the output cannot be written"])
    assert "Traceback" not in err


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_talk_that_cannot_be_written_changes_nothing(shell: Shell, redirection: str) -> None:
    (shell.folder / "out").touch()
    assert shell.redirected(f"{redirection} >out", "check", "bob", "lobby") == (0, "")
    assert (shell.folder / "out").read_text() == ""
    assert shell.redirected(f"{redirection} >out", "check", "", "lobby") == (2, "")
    assert (shell.folder / "out").read_text() == ""


def test_watch_outlives_a_restart_of_redis_and_says_so_once(server: Server, tmp_path: Path) -> None:
    own = Server(server.engine, tmp_path, {"appendonly": "yes"}).start()
    arguments = ["-m", "chat", "watch", "bob", "lobby", "--every", "0.05"]
    watch = Program("watch", arguments, {"REDIS_URL": own.url}, tmp_path).start()
    try:
        eventually(lambda: "bob is new" in watch.output)
        own.stop()
        eventually(lambda: f"no Redis at {own.url}" in watch.output)
        own.start()
        eventually(lambda: "Redis answers again" in watch.output)
        Lab(own.client()).send("lobby", "after all")
        eventually(lambda: "after all" in watch.output)
        assert watch.output.count("no Redis at") == 1
        assert watch.stop(signal.SIGINT) == 0
    finally:
        watch.stop()
        own.stop()


def test_watch_says_that_it_watches_when_the_first_check_went_well(shell: Shell) -> None:
    assert shell("watch", "", "lobby") == (
        2,
        "",
        "chat: client name is 0 characters long, must be a str of 1 to 200 characters\n",
    )
    code, out, err = shell("watch", "bob", "lobby", REDIS_URL="redis://127.0.0.1:1/0")
    assert (code, out, len(err.splitlines())) == (3, "", 1)


def test_a_name_cannot_steer_the_terminal(shell: Shell, tmp_path: Path) -> None:
    bob, lobby, shown = "bob\x1b[2J", "lobby\nx", '"bob\\u001b[2J" is new in "lobby\\nx"\n'
    assert shell("check", bob, lobby)[2].startswith(shown)
    watch = Program("watch", ["-m", "chat", "watch", f"{bob}!", lobby], shell.environment, tmp_path).start()
    eventually(lambda: "is new" in watch.output)
    watch.stop(signal.SIGINT)
    assert watch.output.startswith('watching "lobby\\nx" as "bob\\u001b[2J!", Ctrl-C stops\n')


def test_a_message_that_begins_with_a_dash_is_sent_as_the_help_says(shell: Shell) -> None:
    for arguments in (["--help"], ["send", "--help"]):
        assert 'chat send lobby -- "--hi"' in shell(*arguments)[1]
    assert shell("send", "lobby", "--", "--hi") == (0, "1\n", "")
    assert shell("check", "bob", "lobby")[1].endswith("  --hi\n")
    assert shell("send", "lobby", "-_-") == (0, "2\n", "")
    assert shell("check", "bob", "lobby")[1].endswith("  -_-\n")


def test_a_mistyped_option_and_words_without_quotes_are_no_message(shell: Shell) -> None:
    says = "chat: No such option '--hlep'; to send it, put -- before the message. See chat --help.\n"
    for arguments in (["lobby", "--hlep"], ["--hlep", "lobby", "hi"], ["lobby", "--hlep", "hi"]):
        assert shell("send", *arguments) == (2, "", says)
    says = 'chat: the message is 3 words, must be one: put it in quotes, "hi to all". See chat --help.\n'
    assert shell("send", "lobby", "hi", "to", "all") == (2, "", says)
    assert shell("history", "lobby")[1] == ""


def test_what_is_no_redis_is_said_to_be_none(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer_as_a_web_server, args=(listener,), daemon=True).start()
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        says = f"chat: {url}: what answers there is no Redis: correct the URL\n"
        assert shell("send", "lobby", "hi", REDIS_URL=url) == (3, "", says)


def answer_as_a_web_server(listener: socket.socket) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_messages_that_were_read_and_not_written_are_named(shell: Shell) -> None:
    for body in ("a", "b"):
        shell("send", "lobby", body)
    code, err = shell.redirected(">/dev/full", "check", "bob", "lobby")
    says = "chat: 2 messages up to id 2 counted as read, but not written, chat history lobby shows what is stored: "
    assert (code, err.splitlines()[-1]) == (1, f"{says}No space left on device")


def test_an_unreachable_redis_is_one_line_and_its_own_exit_code(shell: Shell) -> None:
    for arguments in (["send", "lobby", "hi"], ["check", "bob", "lobby"], ["watch", "bob", "lobby"], ["channels"]):
        code, out, err = shell(*arguments, REDIS_URL="redis://:secret@127.0.0.1:1/0")
        assert (code, out, len(err.splitlines()[-1:])) == (3, "", 1)
        assert err.splitlines()[-1].startswith("chat: no Redis at redis://...@127.0.0.1:1/0 (")
        assert "secret" not in err
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["send", "", "hi"], "channel name is 0 characters long, must be a str of 1 to 200 characters"),
        (["send", "x" * 201, "hi"], "channel name is 201 characters long"),
        (["check", "", "lobby"], "client name is 0 characters long"),
        (
            ["check", "bob", "lobby", "--limit", "0"],
            "--limit is 0, must be a whole number of at least 1 and at most 1000000; leave it out for all",
        ),
        (["check", "bob", "lobby", "--history", "-1"], "--history is -1, must be a whole number of at least 0"),
        (["watch", "bob", "lobby", "--history", "-1"], "--history is -1, must be a whole number of at least 0"),
        (["history", "lobby", "--before", "0"], "--before is 0, must be a whole number of at least 1"),
        (["watch", "bob", "lobby", "--every", "0"], "--every is 0, must be a number of seconds above 0"),
        (["send", "lobby", "x" * 70_000], "the body is 70002 bytes of JSON, must be at most 65536"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_stored(
    shell: Shell, redis: Redis, arguments: list[str], says: str
) -> None:
    code, out, err = shell(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"chat: {says}")
    assert len(err.splitlines()) == 1
    assert not redis.dbsize()


def test_a_bad_setting_in_the_file_is_one_line(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CHAT_SHARDS=many\n")
    code, _, err = shell("channels")
    assert (code, err) == (2, "chat: CHAT_SHARDS is 'many', must be a whole number from 1 to 16384\n")


def test_another_number_of_shards_is_a_bad_setting(shell: Shell) -> None:
    shell("send", "lobby", "hi")
    code, _, err = shell("send", "lobby", "hi", CHAT_SHARDS="8")
    assert (code, err.endswith("set CHAT_SHARDS=16, or another CHAT_PREFIX for new data\n")) == (2, True)


def test_a_full_redis_refuses_with_a_code_of_its_own(shell: Shell, redis: Redis) -> None:
    Lab(redis).send("lobby", "x")
    Lab(redis).check("bob", "lobby")
    redis.config_set("maxmemory", "1")
    try:
        code, _, err = shell("send", "lobby", "hi")
        assert (code, err.startswith("chat: Redis is out of memory, this attempt stored nothing")) == (4, True)
        assert shell("check", "bob", "lobby")[0] == 0
        code, _, err = shell("check", "eve", "lobby")
        assert (code, err.startswith("chat: Redis is out of memory, and this client is not known")) == (4, True)
    finally:
        redis.config_set("maxmemory", "0")
    assert redis.llen(Lab(redis).key("lobby", "log:")) == 1


def test_help_ends_in_examples_that_run(shell: Shell) -> None:
    code, out, _ = shell("--help")
    examples = [shlex.split(line, comments=True)[1:] for line in out.partition("Examples:\n")[2].splitlines()]
    assert (code, len(examples)) == (0, 7)
    for words in examples:
        if words[0] != "watch":
            assert shell(*words)[0] == 0


def test_history_is_read_back_from_a_message(shell: Shell, redis: Redis) -> None:
    Lab(redis).send_all("lobby", 5)
    code, out, err = shell("history", "lobby", "--limit", "2", "--before", "5")
    assert (code, err) == (0, "")
    assert [line.split()[::2] for line in out.splitlines()] == [["3", "m3"], ["4", "m4"]]
    assert shell("history", "nosuch") == (0, "", "no messages\n")


def test_who_is_connected_is_listed_until_it_leaves(shell: Shell, redis: Redis) -> None:
    lab = Lab(redis)
    lab.check("bob", "lobby")
    lab.check("eve\x1b[2J", "lobby")
    code, out, err = shell("clients", "lobby")
    assert (code, err) == (0, "")
    assert {line.split()[1] for line in out.splitlines()} == {"bob", '"eve\\u001b[2J"'}
    assert shell("leave", "bob", "lobby") == (0, "", "")
    assert len(shell("clients", "lobby")[1].splitlines()) == 1
    assert shell("clients", "nosuch") == (0, "", "no clients\n")


def test_channels_are_listed(shell: Shell, redis: Redis) -> None:
    assert shell("channels") == (0, "", "no channels\n")
    for name in ("lobby", "[red]tea\n"):
        Lab(redis).send(name, "x")
    assert set(shell("channels")[1].splitlines()) == {"lobby", '"[red]tea\\n"'}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nosuch"], "No such command 'nosuch'."),
        ([], "Missing command."),
        (["send", "lobby"], "Missing argument 'MESSAGE'."),
        (["check", "bob", "lobby", "b"], "Got unexpected extra argument (b)."),
        (["check", "bob", "lobby", "--limit", "x"], "Invalid value for '--limit': 'x' is not a valid integer."),
    ],
)
def test_a_mistyped_command_is_one_line(shell: Shell, arguments: list[str], says: str) -> None:
    assert shell(*arguments) == (2, "", f"chat: {says} See chat --help.\n")


def test_talking_loads_no_screen() -> None:
    code = "import sys, chat.__main__; print(sorted({'rich', 'celery', 'tasks'} & set(sys.modules)))"
    assert run("-c", code).stdout == "[]\n"


@pytest.mark.parametrize(
    ("body", "shown"),
    [("hi", "hi"), ("\x1b[2J", '"\\u001b[2J"'), ("\x9b2J", '"\\u009b2J"'), ({"a": "é"}, '{"a": "é"}'), ("😀", "😀")],
)
def test_a_message_cannot_steer_the_terminal(body: object, shown: str) -> None:
    assert printable(body) == shown
