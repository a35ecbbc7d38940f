from __future__ import annotations

import doctest
import re
from typing import TYPE_CHECKING

import pytest
import yaml
from servers import ROOT, Server

from chat.__main__ import chat as chat_command
from tasks.commands import clean_command
from tasks.metrics import NAMES

if TYPE_CHECKING:
    from redis import Redis


@pytest.mark.usefixtures("redis")
def test_every_python_session_in_the_readme_runs(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", server.url)
    result = doctest.testfile(str(ROOT / "README.md"), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
    assert result.attempted > 15


def test_the_readme_names_every_key(redis: Redis) -> None:
    assert not redis.dbsize()
    readme = (ROOT / "README.md").read_text()
    from chat.store import keys  # noqa: PLC0415  its docstring is the layout

    drawn = [line.split()[0] for line in (keys.__doc__ or "").splitlines() if line.startswith("    chat:")]
    assert len(drawn) == 14
    assert [name for name in drawn if name.rstrip(",") not in readme] == []


def test_the_readme_names_every_shell_command() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [name for name in chat_command.commands if f"chat {name}" not in readme] == []


def test_the_readme_says_what_to_do_about_every_alert() -> None:
    readme = (ROOT / "README.md").read_text()
    rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"][0]["rules"]
    assert [rule["alert"] for rule in rules if f"`{rule['alert']}`" not in readme] == []
    assert set(re.findall(r"`(Pollchat\w+)`", readme)) == {rule["alert"] for rule in rules}


def test_every_file_and_metric_that_the_readme_names_exists() -> None:
    readme = (ROOT / "README.md").read_text()
    named = re.findall(r"\((deploy/[^)]+)\)|`((?:deploy|tests|tasks|chat)/[\w./-]+)`", readme)
    assert [path for pair in named for path in pair if path and not (ROOT / path).exists()] == []
    assert len(named) > 8
    assert set(re.findall(r"`(chat_\w+)`", readme)) <= set(NAMES)


def test_every_option_of_clean_is_a_word_of_the_readme_or_of_its_own_help() -> None:
    readme = (ROOT / "README.md").read_text()
    options = {
        option for command in clean_command.commands.values() for param in command.params for option in param.opts
    }
    limits = {f"--{name.replace('_', '-')}" for name in ("channel_timeout", "message_timeout", "client_timeout")}
    assert {option for option in options - limits if option not in readme} == set()
