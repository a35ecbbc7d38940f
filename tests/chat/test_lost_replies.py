"""The reply is lost after the command was carried out: redis-py repeats it, and nothing happens twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from lab import Lab, bodies
from proxy import LossyProxy
from redis.exceptions import ConnectionError as RedisConnectionError

from chat import Chat, KeyReusedError
from chat.store.connect import connect
from chat.store.keys import Keys
from tasks.cleaning import Report
from tasks.cleaning.record import last_run, recorded
from tasks.cleaning.scripts import NOTE_RUN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers import Server


@pytest.fixture
def proxy(lab: Lab, server: Server) -> Iterator[LossyProxy]:
    lab.check("warm", "up")
    lab.send("warm", "up")
    proxy = LossyProxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def chat(proxy: LossyProxy) -> Chat:
    chat = Chat.from_url(f"redis://127.0.0.1:{proxy.port}/0")
    chat.check_messages("bob", "lobby")
    return chat


def test_a_send_whose_reply_is_lost_is_stored_once_and_returns_its_id(chat: Chat, lab: Lab, proxy: LossyProxy) -> None:
    for number in range(1, 4):
        proxy.lose = 1
        assert chat.send_message("lobby", number).id == number
    assert proxy.lost == 3
    assert lab.redis.llen(lab.key("lobby", "log:")) == 3


def test_a_check_whose_reply_is_lost_delivers_everything_once(chat: Chat, lab: Lab, proxy: LossyProxy) -> None:
    received = []
    for start in (1, 4, 7):
        lab.send_all("lobby", 3, start=start)
        proxy.lose = 2
        received += bodies(chat.check_messages("bob", "lobby", limit=2))
    received += bodies(chat.check_messages("bob", "lobby"))
    assert proxy.lost == 6
    assert received == [f"m{number}" for number in range(1, 10)]


def test_a_first_check_whose_reply_is_lost_is_still_new(chat: Chat, lab: Lab, proxy: LossyProxy) -> None:
    lab.send_all("lobby", 3)
    proxy.lose = 1
    check = chat.check_messages("eve", "lobby", history=2)
    assert (check.new, bodies(check), proxy.lost) == (True, ["m2", "m3"], 1)


def test_a_key_bridges_the_callers_own_retry(chat: Chat, lab: Lab, proxy: LossyProxy) -> None:
    proxy.lose = 99
    with pytest.raises(RedisConnectionError):
        chat.send_message("lobby", "paid", key="order-17")
    proxy.lose = 0
    assert chat.send_message("lobby", "paid", key="order-17").id == 1
    assert lab.redis.llen(lab.key("lobby", "log:")) == 1
    with pytest.raises(KeyReusedError):
        chat.send_message("lobby", "paid twice", key="order-17")


def test_a_cursor_bridges_the_callers_own_retry(chat: Chat, lab: Lab, proxy: LossyProxy) -> None:
    cursor = chat.check_messages("bob", "lobby").cursor
    lab.send_all("lobby", 3)
    proxy.lose = 99
    with pytest.raises(RedisConnectionError):
        chat.check_messages("bob", "lobby", after=cursor)
    proxy.lose = 0
    assert bodies(chat.check_messages("bob", "lobby", after=cursor)) == ["m1", "m2", "m3"]


# The record of the runs: see chat/store/lua/note_run.lua.


def test_a_run_whose_report_is_noted_again_counts_once(lab: Lab, proxy: LossyProxy) -> None:
    client = connect(f"redis://127.0.0.1:{proxy.port}/0")

    def work() -> Report:
        proxy.lose = 1  # the reply to the note that follows
        return Report(sweep="clean_backlog", messages=7)

    recorded(work, client, Keys("chat", 16), "clean_backlog", {})
    last = last_run(lab.redis.hgetall("chat:runs"), "clean_backlog")
    assert (proxy.lost, last.runs, last.messages, last.report["messages"]) == (1, 1, 7, 7)
    client.close()


def test_a_run_whose_report_was_noted_does_not_count_as_failed_too(lab: Lab, proxy: LossyProxy) -> None:
    client = connect(f"redis://127.0.0.1:{proxy.port}/0", retries=0)

    def work() -> Report:
        proxy.lose = 1
        return Report(sweep="clean_backlog", messages=7)

    with pytest.raises(RedisConnectionError):
        recorded(work, client, Keys("chat", 16), "clean_backlog", {})
    last = last_run(lab.redis.hgetall("chat:runs"), "clean_backlog")
    assert (proxy.lost, last.runs, last.failures, last.error) == (1, 1, 0, "")
    client.close()


def test_notes_of_other_runs_in_between_do_not_make_a_repeated_note_count_again(lab: Lab) -> None:
    def note(token: str) -> None:
        NOTE_RUN(lab.redis, (b"chat:runs",), ("clean_backlog", "ended", "{}", token, "runs", 1))

    tokens = [f"{number:016x}" for number in range(20)]
    for token in [*tokens, *tokens[10:]]:
        note(token)
    assert lab.redis.hget("chat:runs", "clean_backlog:runs") == b"20"
    for token in tokens * 3:
        note(token)
    assert lab.redis.hstrlen("chat:runs", "clean_backlog:counted") < 1000
