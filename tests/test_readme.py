from __future__ import annotations

import doctest
from typing import TYPE_CHECKING

import pytest
from servers import ROOT, Server

from chat.__main__ import _parser

if TYPE_CHECKING:
    from redis import Redis


@pytest.mark.usefixtures("redis")
def test_every_python_session_in_the_readme_runs(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", server.url)
    result = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert result.failed == 0
    assert result.attempted > 15


def test_the_readme_names_every_key(redis: Redis) -> None:
    assert not redis.dbsize()
    readme = (ROOT / "README.md").read_text()
    from chat import _keys  # noqa: PLC0415  its docstring is the layout

    drawn = [line.split()[0] for line in (_keys.__doc__ or "").splitlines() if line.startswith("    chat:")]
    assert len(drawn) == 14
    assert [name for name in drawn if name.rstrip(",") not in readme] == []


def test_the_readme_names_every_shell_command() -> None:
    readme = (ROOT / "README.md").read_text()
    commands = _parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr,index]
    assert [name for name in commands if f"chat {name}" not in readme] == []
