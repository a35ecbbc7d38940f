from __future__ import annotations

import inspect
import pickle
import pydoc
import re
import subprocess
import sys
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock, Mock

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from servers import ROOT

import chat
from chat import (
    AsyncChat,
    Chat,
    ChatClosedError,
    Check,
    ChecksFailedError,
    InvalidArgumentError,
    KeyReusedError,
    Message,
    _errors,
    screen,
    settings,
)
from tasks import cleaning
from tasks import settings as daemon_settings
from tasks.stats import figures as stats
from tasks.stats import usage

if TYPE_CHECKING:
    from pathlib import Path

LUA = sorted(path for package in ("chat", "tasks") for path in (ROOT / package).rglob("*.lua"))
SCRIPTS = [path for path in LUA if path.read_text().startswith("#!lua")]  # the others are put in front of them


@pytest.mark.parametrize("module", [chat, cleaning, daemon_settings, screen, settings, stats, usage])
def test_what_is_public_is_said_and_sorted(module: object) -> None:
    names = module.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name))  # constants first, as ruff wants it
    defined = {
        name for name, value in vars(module).items() if getattr(value, "__module__", "").startswith(("chat", "tasks"))
    }
    if module is chat:
        assert {name for name in defined if not name.startswith("_")} == set(names)
    assert {name for name in names if not name.isupper()} <= defined


@pytest.mark.parametrize("name", chat.__all__)
def test_what_is_public_shows_the_module_to_import_it_from(name: str) -> None:
    public = getattr(chat, name)
    assert repr(public) == f"<class 'chat.{name}'>"
    assert pickle.loads(pickle.dumps(public)) is public  # noqa: S301  its own
    assert f"class {name}" in pydoc.render_doc(public, renderer=pydoc.plaintext)


def test_the_source_of_a_public_method_is_found() -> None:
    assert inspect.getsource(Chat.send_message).lstrip().startswith("def send_message")


def test_a_traceback_shows_the_module_to_import_an_error_from() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Chat(Redis(port=1)).read_history("lobby", limit=0)
    assert "".join(traceback.format_exception_only(caught.value)).startswith("chat.InvalidArgumentError: limit is 0, ")


CHECK = Check((Message(1, datetime.now(UTC), "hi"),), new=True, missed=0, more=False, cursor="c")


@pytest.mark.parametrize(
    "value",
    [CHECK, ChatClosedError(), ChecksFailedError({"tea": CHECK}, {"hall": ValueError("gone")}), KeyReusedError("key")],
)
def test_values_and_errors_survive_pickling(value: Any) -> None:
    copy = pickle.loads(pickle.dumps(value))  # noqa: S301  its own
    assert type(copy) is type(value)
    assert str(copy) == str(value)


def test_the_error_tree_is_drawn_as_it_is() -> None:
    drawn = set(re.findall(r"\b(\w+Error)\b", _errors.__doc__ or "")) - {
        "OutOfMemoryError",
        "ValueError",
        "RuntimeError",
        "ConnectionError",
        "TimeoutError",
    }
    assert drawn == set(_errors.__all__)
    for name in _errors.__all__:
        assert issubclass(getattr(chat, name), chat.ChatError)
    assert all(len(getattr(chat, name).__mro__) > 4 for name in _errors.__all__ if name != "ChatError")


SYNC = "must be a redis.Redis or RedisCluster: use"
ASYNC = "must be a redis.asyncio.Redis or RedisCluster: use"


@pytest.mark.parametrize(
    ("face", "client", "says"),
    [
        (Chat, "redis://localhost", f"client is a str, {SYNC} Chat.from_url(url)"),
        (Chat, None, f"client is a NoneType, {SYNC} Chat.from_url(url)"),
        (Chat, Redis, f"client is the class redis.client.Redis, {SYNC} Chat.from_url(url)"),
        (Chat, AsyncRedis(), f"client is a redis.asyncio.client.Redis, {SYNC} AsyncChat, or Chat.from_url(url)"),
        (AsyncChat, "redis://localhost", f"client is a str, {ASYNC} AsyncChat.from_url(url)"),
        (AsyncChat, None, f"client is a NoneType, {ASYNC} AsyncChat.from_url(url)"),
        (AsyncChat, Redis(), f"client is a redis.client.Redis, {ASYNC} Chat, or AsyncChat.from_url(url)"),
    ],
)
def test_what_is_no_client_is_refused_at_once(face: type[Chat | AsyncChat], client: Any, says: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        face(client)
    assert str(caught.value) == says


@pytest.mark.parametrize("face", [Chat, AsyncChat])
def test_settings_of_another_type_are_refused_at_once(face: type[Chat | AsyncChat]) -> None:
    client: Any = Redis() if face is Chat else AsyncRedis()
    with pytest.raises(InvalidArgumentError) as caught:
        face(client, settings={"backlog": 5})  # type: ignore[arg-type]
    assert str(caught.value) == "settings are a dict, must be chat.Settings(...), or None for the defaults"


class Wrapper:
    """A client in another's clothes: one that counts, traces, or answers a test."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_a_wrapper_and_a_double_of_a_client_are_none_the_worse(redis: Redis) -> None:
    assert Chat(Wrapper(redis)).send_message("lobby", "hi").id == 1  # type: ignore[arg-type]
    Chat(Mock())
    AsyncChat(AsyncMock())
    AsyncChat(Wrapper(AsyncRedis()))  # type: ignore[arg-type]


def test_a_check_in_place_of_its_cursor_is_told_where_the_cursor_is(redis: Redis) -> None:
    chat: Any = Chat(redis)
    check = chat.check_messages("bob", "lobby")
    for ask in (
        lambda: chat.check_messages("bob", "lobby", after=check),
        lambda: chat.check_many("bob", {"lobby": check}),
        lambda: next(chat.listen("bob", "lobby", after=check)),
    ):
        with pytest.raises(InvalidArgumentError) as caught:
            ask()
        assert str(caught.value) == "after is a check, must be check.cursor"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_says_what_it_is_for_what_it_takes_and_returns(script: Path) -> None:
    source = script.read_text()
    header = source.split("\nlocal ")[0]
    assert all(word in header for word in ("-- KEYS", "-- ARGV", "-- Returns"))


@pytest.mark.parametrize("path", LUA, ids=lambda path: path.stem)
def test_no_script_walks_over_keys_and_the_time_is_read_once(path: Path) -> None:
    source = path.read_text()
    assert not re.search(r"'(KEYS|SCAN|HGETALL|SMEMBERS)'", source)
    if path.is_relative_to(ROOT / "chat"):
        assert ("'TIME'" in source) == (path.stem == "time")
    assert source.count("'TIME'") <= 1


def test_only_what_stores_or_lets_in_is_refused_by_a_full_redis() -> None:
    first = {script.stem: script.read_text().splitlines()[0] for script in SCRIPTS}
    assert {name for name, line in first.items() if not {"allow-oom", "no-writes"} & set(line.split("="))} == {
        "check",
        "restore",
        "send",
    }


def test_chat_knows_no_celery() -> None:
    code = "import sys, chat.__main__; print([m for m in sys.modules if 'celery' in m])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_top_level_holds_what_it_should() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    top = {name.split("/")[0] for name in listed if not name.startswith(".")}
    assert top <= {
        "LICENSE", "README.md", "celeryconfig.py", "chat", "deploy", "pyproject.toml", "tasks", "tests",
    }  # fmt: skip
