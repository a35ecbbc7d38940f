"""What worker and beat look at when they start."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from servers import ROOT, Server, beat, eventually, run, worker

from chat._values import Message
from chat.settings import unknown_names
from chat.store.entries import time_of
from tasks.archive.folder import Folder
from tasks.robust.checks import write_into

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = [["worker", "--without-gossip", "--without-mingle"], ["beat", "--pidfile="]]


@pytest.mark.parametrize("words", PROGRAMS, ids=["worker", "beat"])
@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("CHAT_ARCHIVE", "nomod:fn", "CHAT_ARCHIVE is 'nomod:fn', which cannot be imported here: ModuleNotFoundError"),
        ("CHAT_ON_EXPIRE", "json:nofn", "CHAT_ON_EXPIRE is 'json:nofn', which cannot be imported here: AttributeError"),
        ("CHAT_ON_EXPIRE", "json:__name__", "CHAT_ON_EXPIRE is 'json:__name__', must be a function"),
        ("CHAT_ARCHIVE", "FILE/below", "CHAT_ARCHIVE is 'FILE/below', must be a folder that can be written here: "),
        ("CHAT_ARCHIVE", "FILE", "CHAT_ARCHIVE is 'FILE', must be a folder that can be written here: "),
    ],
)
def test_a_destination_that_cannot_work_ends_the_start_with_one_line(
    words: list[str], name: str, value: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    value, says = (text.replace("FILE", str(tmp_path / "file")) for text in (value, says))
    done = run("-m", "celery", "-A", "tasks", *words, folder=tmp_path, **{name: value})
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(f"pollchat: {says}")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [*PROGRAMS, ["call", "tasks.clean_backlog"]], ids=lambda words: words[0])
def test_a_celeryconfig_of_another_project_ends_the_start_with_one_line(words: list[str], tmp_path: Path) -> None:
    foreign = tmp_path / "celeryconfig.py"
    foreign.write_text("broker_url = 'memory://'\n")
    done = run("-m", "celery", "-A", "tasks", *words, folder=tmp_path)
    says = f"pollchat: celeryconfig is {foreign}, must be {ROOT / 'celeryconfig.py'}: "
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == says + "start Celery in that folder, or install the wheel\n"


def test_a_folder_for_the_archive_is_made_and_left_empty(tmp_path: Path) -> None:
    write_into(tmp_path / "some" / "where")
    assert list((tmp_path / "some" / "where").iterdir()) == []
    assert (tmp_path / "some" / "where").stat().st_mode & 0o777 == 0o700


def month_of(folder: Path) -> Path:
    """Keep a message in an archive; return its file."""
    assert not Folder(folder).keep({"lobby": (Message(1, time_of(10**12), "hi"),)})
    (path,) = folder.glob("*.sqlite3")
    return path


def test_an_archive_is_left_as_it_was(tmp_path: Path) -> None:
    path = month_of(tmp_path)
    before = path.read_bytes()
    write_into(tmp_path)
    assert path.read_bytes() == before
    assert Folder(tmp_path).keep({"lobby": (Message(2, time_of(10**12), "hi"),)}) == {}


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that other users may enter, unlike pytest's."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.mark.parametrize("kind", ["of another user", "with a journal of another user", "something else"])
def test_a_file_of_this_month_that_cannot_be_written_is_found_at_the_start(public: Path, kind: str) -> None:
    path = month_of(public)
    journal = path.with_name(f"{path.name}-journal")
    path.chmod(0o666)
    journal.chmod(0o666)
    if kind == "something else":
        path.write_bytes(b"a letter to a friend\n" * 500)
    else:
        (path if kind == "of another user" else journal).chmod(0o444)
    program = (
        "import os, pathlib, sys\n"
        "from chat import SettingsError\n"
        "from tasks.robust.checks import write_into\n"
        "os.geteuid() or os.setuid(65534)\n"
        "try: write_into(pathlib.Path(sys.argv[1]))\n"
        "except SettingsError as error: print(error)\n"
    )
    done = run("-c", program, str(public))
    assert (done.stderr, len(done.stdout.splitlines())) == ("", 1)
    assert done.stdout.startswith(f"CHAT_ARCHIVE is '{public}', must be a folder that can be written here: {path}")


def test_a_file_that_root_makes_belongs_to_the_owner_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[Any, ...]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda *call, **_: given.append(call))
    path, owner = month_of(tmp_path), tmp_path.stat()
    month_of(tmp_path)
    assert given == [(path, owner.st_uid, owner.st_gid)]


@pytest.mark.slow
def test_worker_and_beat_start_with_destinations_that_work_and_warn_of_names_that_are_no_settings(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "hooks.py").write_text("def gone(channel, clients): pass\n")
    settings = {"CHAT_ON_EXPIRE": "hooks:gone", "CHAT_ARCHIVE": str(tmp_path / "kept"), "CHAT_BACKLGO": "7"}
    environment = {"REDIS_URL": server.url} | settings
    for program, sign in ((worker(tmp_path, environment), "ready."), (beat(tmp_path, environment), "Sending due task")):
        program.start()
        try:
            eventually(lambda program=program, sign=sign: sign in program.output)
        finally:
            assert program.stop() == 0
        assert program.output.count("CHAT_BACKLGO is no setting and does nothing: did you mean CHAT_BACKLOG?") == 1
        assert "WARNING CHAT_BACKLGO" in program.output


@pytest.mark.slow
def test_a_hook_that_asks_a_redis_that_is_away_does_not_keep_a_worker_from_starting(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "hooks.py").write_text("import redis\nredis.Redis(port=1, retry=None).ping()\ndef gone(*_): pass\n")
    program = worker(tmp_path, {"REDIS_URL": server.url, "CHAT_ON_EXPIRE": "hooks:gone"}).start()
    try:
        eventually(lambda: "ready." in program.output)
    finally:
        program.stop()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("CHAT_BACKLGO", "did you mean CHAT_BACKLOG?"),
        ("CHAT_CLEAN_CLIENT_EVERY", "did you mean CHAT_CLEAN_CLIENTS_EVERY?"),
        ("CHAT_BROKER_ULR", "did you mean CHAT_BROKER_URL?"),
        ("CHAT_REDIS_URL", "did you mean"),
        ("CHAT_XYZZY_QWERTZ_PLUGH", "see .env.example for the names"),
    ],
)
def test_a_name_that_is_no_setting_is_told_with_the_nearest_that_is(name: str, says: str) -> None:
    (line,) = unknown_names({name: "1", "REDIS_URL": "", "HOME": "/"})
    assert line.startswith(f"{name} is no setting and does nothing: {says}")


def test_settings_empty_values_and_what_kubernetes_adds_for_a_service_are_no_unknown_names() -> None:
    example = (ROOT / ".env.example").read_text().splitlines()
    known = {line.lstrip("# ").partition("=")[0]: "1" for line in example if line.lstrip("# ").startswith("CHAT_")}
    service = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR")
    added = {f"CHAT_{more}{name}": "1" for name in service for more in ("", "REDIS_")}
    assert len(known) > 15
    assert unknown_names(known | added | {"CHAT_BACKLGO": " "}) == []


def test_the_chat_command_warns_of_a_name_in_the_file_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CHAT_BACKLGO=7\n")
    done = run("-m", "chat", "send", "lobby", "hi", folder=tmp_path, REDIS_URL="redis://127.0.0.1:1/0")
    assert (
        done.stderr.splitlines()[0] == "chat: CHAT_BACKLGO is no setting and does nothing: did you mean CHAT_BACKLOG?"
    )
    assert len(done.stderr.splitlines()) == 2


def test_a_function_is_imported_from_the_working_folder_which_hides_no_module(tmp_path: Path) -> None:
    for module in ("mine", "json"):  # json is Python's
        (tmp_path / f"{module}.py").write_text("def hello(channel, clients): print(__name__)\n")
    code = "from tasks.functions import hook_at; hook_at('json:loads'); hook_at('mine:hello')('lobby', None)"
    done = run("-P", "-c", code, folder=tmp_path)  # without its folder, as in the script `celery`
    assert (done.returncode, done.stdout) == (0, "mine\n"), done.stderr
