"""Sentinel: chat, broker and results on a primary that dies, and on the replica that takes over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from clusters import ask
from lab import Lab, bodies
from redis.exceptions import ConnectionError as RedisConnectionError
from sentinels import Sentinels
from servers import BINARIES, beat, eventually, every, run, worker

from chat import Chat
from chat.store.connect import connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture(params=BINARIES)
def sentinels(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sentinels]:
    with Sentinels(request.param, tmp_path) as sentinels:
        yield sentinels


def works(sentinels: Sentinels) -> None:
    """Wait until beat sends and the worker cleans: seen from a channel that goes."""
    lab = Lab(connect(sentinels.url))
    lab.send("canary", "x")
    lab.idle("canary", 901)
    eventually(lambda: not lab.traces("canary"), 60)


def test_chat_broker_and_results_outlive_two_failovers(sentinels: Sentinels, tmp_path: Path) -> None:
    environment = {"REDIS_URL": sentinels.url} | every(0.5)
    programs = [worker(tmp_path, environment).start(), beat(tmp_path, environment).start()]
    chat = Chat.from_url(sentinels.url)
    chat.check_messages("bob", "lobby")
    try:
        for number in range(2):
            works(sentinels)
            chat.send_message("lobby", f"kept {number}")
            assert ask(sentinels.primary(), "WAIT", 1, 5000) == 1
            dead = sentinels.primary()
            sentinels.kill_primary()

            def sends(number: int = number) -> bool:
                try:
                    chat.send_message("lobby", f"after {number}", key=f"after {number}")
                except RedisConnectionError:
                    return False
                return True

            eventually(sends)
            works(sentinels)
            done = run("-m", "celery", "-A", "tasks", "clean", "all", **environment)
            assert (done.returncode, done.stderr) == (0, "")
            sentinels.restart(dead)
        assert bodies(chat.check_messages("bob", "lobby")) == ["kept 0", "after 0", "kept 1", "after 1"]
        assert "Traceback" not in "".join(program.output for program in programs)
        assert "chat:celery:" in "".join(map(str, connect(sentinels.url).keys("*")))
    finally:
        for program in programs:
            program.stop()


def test_the_commands_take_the_url(sentinels: Sentinels) -> None:
    assert run("-m", "chat", "send", "tea", "hi", REDIS_URL=sentinels.url).stdout == "1\n"
    assert run("-m", "chat", "check", "bob", "tea", REDIS_URL=sentinels.url).stdout.endswith("  hi\n")
    assert "0 waiting, 0 taken" in run("-m", "celery", "-A", "tasks", "stats", REDIS_URL=sentinels.url).stdout
    other = sentinels.url.replace("/chat/", "/unknown/")
    done = run("-m", "chat", "send", "tea", "hi", REDIS_URL=other)
    assert done.returncode == 3
    assert "the sentinels name no primary for 'unknown'" in done.stderr
