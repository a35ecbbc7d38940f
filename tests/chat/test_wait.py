"""A check that waits for news."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest
from lab import Lab, bodies, calls
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from servers import Server, eventually
from waiters import Waiter, checked_and_waiting, listeners, waiting

from chat import Chat, ChatClosedError, Check, InvalidArgumentError, Message
from chat._async_chat import AsyncChat
from chat.store.nodes import nodes
from chat.waiting import async_transport, async_wake_ups, registry, transport, wait, wake_ups
from tasks.cleaning import clean_clients

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.on_cluster, pytest.mark.on_asyncio]

OUTAGE = RedisConnectionError("gone")


@pytest.fixture
def no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a wake-up ends a wait."""
    monkeypatch.setattr(wait, "RECHECK", 1000)


@pytest.mark.usefixtures("no_second_look")
def test_a_send_ends_the_wait(lab: Lab) -> None:
    lab.check("bob", "lobby")
    waiter = waiting(lab)
    sent = lab.send("lobby", "hi")
    check = waiter.result()
    assert check.messages == (sent,)
    assert not check.new


def test_what_is_there_already_is_not_waited_for(lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.send("lobby", "hi")
    assert bodies(lab.check("bob", "lobby", wait=60)) == ["hi"]


def test_at_the_deadline_the_check_is_empty(lab: Lab) -> None:
    lab.check("bob", "lobby")
    check = lab.check("bob", "lobby", wait=0.2)
    assert (check.messages, check.new, check.missed, check.more) == ((), False, 0, False)


@pytest.mark.usefixtures("no_second_look")
def test_a_client_that_was_new_when_the_wait_began_is_so_when_it_ends(lab: Lab) -> None:
    lab.send("lobby", "before")
    waiter = waiting(lab)
    eventually(lambda: lab.chat.count_clients("lobby"))
    lab.send("lobby", "after")
    check = waiter.result()
    assert (check.new, bodies(check)) == (True, ["after"])


@pytest.mark.usefixtures("no_second_look")
def test_no_wake_up_is_lost_between_nothing_new_and_waiting(lab: Lab) -> None:
    lab.check("bob", "lobby")
    got: list[str] = []

    def read() -> None:
        while len(got) < 100:
            got.extend(bodies(lab.check("bob", "lobby", wait=30)))

    reader = Waiter(read)
    for number in range(100):
        lab.send("lobby", f"m{number}")
        eventually(lambda n=number: len(got) > n)  # type: ignore[misc]
    reader.result()
    assert got == [f"m{number}" for number in range(100)]


@pytest.mark.usefixtures("no_second_look")
def test_two_waits_of_one_client_split_the_messages(lab: Lab) -> None:
    lab.check("bob", "lobby")
    waiters = [waiting(lab, seconds=1.0) for _ in range(4)]
    lab.send("lobby", "hi")
    assert sorted(bodies(waiter.result()) for waiter in waiters) == [[], [], [], ["hi"]]


@pytest.mark.usefixtures("no_second_look")
def test_two_waits_of_one_client_with_cursors_of_their_own_both_get_the_message(lab: Lab) -> None:
    cursor = lab.check("bob", "lobby").cursor
    waiters = [waiting(lab, after=cursor) for _ in range(3)]
    lab.send("lobby", "hi")
    checks = [waiter.result() for waiter in waiters]
    assert [bodies(check) for check in checks] == [["hi"]] * 3
    assert not any(check.new or check.missed for check in checks)


@pytest.mark.usefixtures("no_second_look")
def test_many_waiters_share_one_connection_to_each_server(lab: Lab) -> None:
    before = sum(len(node.client_list(_type="pubsub")) for node in nodes(lab.redis))
    waiters = [waiting(lab, f"client {number}", f"room {number % 7}") for number in range(40)]
    eventually(lambda: sum(lab.chat.count_clients(f"room {number}") for number in range(7)) == 40)
    connections = sum(len(node.client_list(_type="pubsub")) for node in nodes(lab.redis)) - before
    assert 1 <= connections <= len(nodes(lab.redis))
    for number in range(7):
        lab.send(f"room {number}", number)
    assert [bodies(waiter.result()) for waiter in waiters] == [[number % 7] for number in range(40)]


@pytest.mark.usefixtures("no_second_look")
def test_what_is_sent_elsewhere_wakes_nobody(lab: Lab) -> None:
    lab.check("bob", "lobby")
    waiter = waiting(lab, seconds=1)
    eventually(lambda: listeners(lab, "lobby"))
    calls(lab.redis)
    for number in range(50):
        lab.send(f"room {number}", "hi")
    assert waiter.result().messages == ()
    assert calls(lab.redis)["evalsha"] <= 53


def test_a_waiter_counts_as_connected(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "RECHECK", 0.05)
    lab.check("bob", "lobby")
    waiter = waiting(lab)
    lab.away("bob", "lobby", 1000)
    eventually(lambda: max(p.checked_at.timestamp() for p in lab.chat.clients("lobby")) > time.time() - 60)
    assert clean_clients(lab.redis, settings=lab.settings).clients == 0
    lab.send("lobby", "hi")
    assert bodies(waiter.result()) == ["hi"]


@pytest.mark.usefixtures("no_second_look")
def test_a_client_that_is_forgotten_while_it_waits_misses_nothing(lab: Lab) -> None:
    waiter = checked_and_waiting(lab)
    lab.chat.leave_channel("bob", "lobby")
    lab.send("lobby", "hi")
    assert bodies(waiter.result()) == ["hi"]


@pytest.mark.usefixtures("no_second_look")
def test_what_is_sent_after_a_flush_reaches_who_waited_before_it(lab: Lab) -> None:
    waiter = checked_and_waiting(lab)
    lab.redis.flushdb()
    lab.send("lobby", "hi")
    check = waiter.result()
    assert (check.new, bodies(check)) == (True, ["hi"])


@pytest.mark.usefixtures("no_second_look")
def test_a_lost_connection_is_made_again_and_what_came_meanwhile_is_told(lab: Lab) -> None:
    lab.check("bob", "lobby")
    waiter = waiting(lab)
    for node in nodes(lab.redis):
        node.client_kill_filter(_type="pubsub", skipme=False)
    lab.send("lobby", "hi")
    assert bodies(waiter.result()) == ["hi"]


@pytest.mark.usefixtures("no_second_look")
def test_a_connection_that_redis_py_made_anew_is_subscribed_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut: list[Any] = []
    heard = registry.Registry.heard

    def cut_off(names: registry.Registry, reply: Any) -> None:
        heard(names, reply)
        if not cut:  # between two replies, as another thread may
            (subscription,) = chat._transport._wake_ups._subscriptions.values()
            cut.append(subscription._connection)
            subscription._connection.disconnect()

    monkeypatch.setattr(registry.Registry, "heard", cut_off)
    with Chat.from_url(server.url) as chat:
        chat.check_messages("bob", "cut off")
        waiter = Waiter(lambda: chat.check_messages("bob", "cut off", wait=50))
        eventually(lambda: cut and cut[0].is_connected)
        chat.send_message("cut off", "hi")
        assert bodies(waiter.result()) == ["hi"]


@pytest.mark.usefixtures("no_second_look")
def test_a_connection_that_another_task_closed_is_made_anew(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[Any] = []
    heard = registry.Registry.heard

    def cut_off(names: registry.Registry, reply: Any) -> None:
        heard(names, reply)
        if not cut:
            (subscription,) = chat._transport._wake_ups._subscriptions.values()
            cut.append(subscription._connection)
            cut[0]._writer.close()
            cut[0]._reader = cut[0]._writer = None
            cut[0]._writer.writelines(())  # as redis-py does then: AttributeError

    async def wait() -> list[Any]:
        nonlocal chat
        async with AsyncChat.from_url(server.url) as chat, AsyncChat.from_url(server.url) as other:
            await chat.check_messages("bob", "cut off too")
            waiter = asyncio.create_task(chat.check_messages("bob", "cut off too", wait=50))
            while not cut:
                assert not await other.read_history("cut off too")
            await other.send_message("cut off too", "hi")
            async with asyncio.timeout(10):
                return bodies(await waiter)

    chat: Any = None
    monkeypatch.setattr(registry.Registry, "heard", cut_off)
    assert asyncio.run(wait()) == ["hi"]


def test_a_connection_of_a_node_that_is_closed_while_it_connects_is_an_outage() -> None:
    node = Mock()
    node.acquire_connection().connect = AsyncMock(side_effect=AttributeError("writelines"))
    with pytest.raises(RedisConnectionError):
        asyncio.run(async_wake_ups._NodePool(node).get_connection())
    assert node.release.called


def test_a_wake_up_that_redis_lost_costs_no_more_than_the_next_look(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "RECHECK", 0.1)
    lab.check("bob", "lobby")
    waiter = waiting(lab)
    entry = f'{int(time.time() * 1000)}:"hi"'
    lab.redis.rpush(lab.key("lobby", "log:"), entry)  # as if nobody had said so
    lab.redis.zincrby(lab.key("lobby", "sizes"), 1, "lobby")
    assert bodies(waiter.result()) == ["hi"]


@pytest.mark.one_server
def test_a_user_that_may_not_publish_sends_all_the_same(lab: Lab) -> None:
    with restricted(lab, "resetchannels") as (chat, _):
        assert chat.send_message("lobby", "hi").id == 1
        assert len(chat.read_history("lobby")) == 1


@pytest.mark.one_server
def test_a_user_that_may_not_listen_is_told_so(lab: Lab) -> None:
    with restricted(lab, "resetchannels") as (chat, _):
        waiter = Waiter(lambda: chat.check_messages("bob", "lobby", wait=30))
        with pytest.raises(Exception, match=r"No permissions|no permissions"):
            waiter.result()


@contextmanager
def restricted(lab: Lab, *rules: str) -> Iterator[tuple[Chat, Redis]]:
    """Yield a chat of a user of its own."""
    lab.redis.execute_command("ACL", "SETUSER", "limited", "on", ">secret", "~*", "+@all", *rules)
    port = lab.redis.connection_pool.connection_kwargs["port"]
    with Redis(port=port, username="limited", password="secret") as client:  # noqa: S106  made for this test
        yield Chat(client), client
    lab.redis.execute_command("ACL", "DELUSER", "limited")


def test_closing_the_chat_ends_a_wait(lab: Lab) -> None:
    waiter = waiting(lab)
    lab.chat.close()
    with pytest.raises(ChatClosedError):
        waiter.result()


def test_closing_the_chat_right_after_a_wait_began_takes_no_time(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "LINGER", 1000)
    lab.send("lobby", "hi")
    assert bodies(lab.check("bob", "lobby", history=1, wait=50)) == ["hi"]  # its ear may still be connecting
    Waiter(lab.chat.close).result()


def test_closing_the_chat_ends_listening(lab: Lab) -> None:
    lab.send("lobby", "hi")
    messages = lab.chat.listen("bob", "lobby", history=1)
    assert next(messages).body == "hi"
    listener = Waiter(lambda: next(messages))
    eventually(lambda: listeners(lab, "lobby"))
    lab.chat.close()
    with pytest.raises(ChatClosedError):
        listener.result()


def test_listening_goes_on_from_message_to_message(lab: Lab) -> None:
    lab.send_all("lobby", 3)
    messages = lab.chat.listen("bob", "lobby", history=2)
    assert [next(messages).body for _ in range(2)] == ["m2", "m3"]
    later = Waiter(lambda: next(messages).body)
    lab.send("lobby", "m4")
    assert later.result() == "m4"
    lab.send_all("lobby", 2, start=5)
    assert [next(messages).body for _ in range(2)] == ["m5", "m6"]


def listening() -> wait.Wait:
    """Return the wait of a listener that began at 0; the seconds are those of a clock that the test turns."""
    return wait.Wait(Mock(), 60, client_timeout=1000, now=0).next(0)


def test_a_listener_bears_a_minute_without_an_answer_whatever_is_left_of_its_wait() -> None:
    listener = listening()
    listener.succeeded(Check((), new=False, missed=0, more=False, cursor=""), 50)
    assert listener.failed(OUTAGE, 60) == listener.failed(OUTAGE, 109) == wait.RETRY
    assert listener.timeout(60) == 50 + wait.GRACE
    with pytest.raises(RedisConnectionError):
        listener.failed(OUTAGE, 110)


def test_a_listener_bears_a_minute_from_when_it_asks_again() -> None:
    listener = listening()
    listener.succeeded(Check((), new=False, missed=0, more=False, cursor=""), 0)
    later = listener.next(100)  # its messages took the caller that long
    assert later.failed(OUTAGE, 159) == wait.RETRY
    with pytest.raises(RedisConnectionError):
        later.failed(OUTAGE, 160)


def test_a_listener_that_never_had_an_answer_raises_at_once() -> None:
    with pytest.raises(RedisConnectionError):
        listening().failed(OUTAGE, 0)


class Outage:
    """A clock that waiting turns, and a Redis that is away from 55 to 85 and has a message after that."""

    now = 0.0

    def turn(self, seconds: float) -> None:
        self.now += seconds

    def check(self) -> Check:
        if 55 <= self.now < 85:
            raise OUTAGE
        messages = (Message(1, datetime.now(UTC), "hi"),) if self.now >= 85 else ()
        return Check(messages, new=False, missed=0, more=False, cursor="")


def test_the_first_wait_of_a_listener_bears_an_outage_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    outage = Outage()
    monkeypatch.setattr(transport, "time", Mock(monotonic=lambda: outage.now))
    inside: Any = Chat(Redis(port=1))._transport
    inside._wake_ups = MagicMock()
    inside._wake_ups.subscription().ticket().__enter__().event.wait = outage.turn
    inside._gate.closed.wait = outage.turn
    inside._checks.run = lambda *_: outage.check()
    assert next(inside.listen(wait.Wait(Mock(), 60, client_timeout=1000, now=0))).body == "hi"


def test_the_first_wait_of_a_listening_task_bears_an_outage_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    outage = Outage()

    async def turn(_: Any, seconds: float) -> None:
        outage.turn(seconds)

    async def run(_: float, work: Any, *__: Any) -> Any:
        return outage.check() if work == inside.check else MagicMock()

    async def listen() -> Any:
        nonlocal inside
        inside = AsyncChat.from_url("redis://localhost:1")._transport
        inside._checks.run = run
        return await anext(inside.listen(wait.Wait(Mock(), 60, client_timeout=1000, now=0)))

    inside: Any = None
    monkeypatch.setattr(async_transport, "time", Mock(monotonic=lambda: outage.now))
    monkeypatch.setattr(async_transport, "_wait_for", turn)
    assert asyncio.run(listen()).body == "hi"


@pytest.mark.parametrize("wait", [-1, 61, float("nan"), "1", None, True])
def test_a_bad_wait_is_one_clear_error(wait: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"wait is .*, must be a number of seconds from 0 to 60"):
        Chat(Redis(port=1)).check_messages("bob", "lobby", wait=wait)


def test_who_stops_waiting_is_no_longer_listened_for(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "LINGER", 0.2)
    monkeypatch.setattr(wake_ups, "QUIET", 0.2)
    monkeypatch.setattr(async_wake_ups, "QUIET", 0.2)
    lab.check("bob", "lobby")
    waiter = waiting(lab)
    lab.send("lobby", "hi")
    waiter.result()
    eventually(lambda: lab.send("elsewhere", "x") and not listeners(lab, "lobby"))


def test_a_thousand_tasks_wait_in_one_process(server: Server) -> None:
    async def wait() -> list[Any]:
        async with AsyncChat.from_url(server.url) as chat:
            channel = f"thousand {time.time_ns()}"
            waiters = [asyncio.create_task(chat.check_messages(f"c{n}", channel, wait=30)) for n in range(1000)]
            while await chat.count_clients(channel) < 1000:
                assert not any(waiter.done() for waiter in waiters)
            await chat.send_message(channel, "hi")
            return [bodies(await waiter) for waiter in waiters]

    with server.client() as redis:
        redis.config_resetstat()
        assert asyncio.run(wait()) == [["hi"]] * 1000
        assert calls(redis)["get"] <= 2 * 32  # the number of shards: by those that had their turn at once


def test_a_task_that_subscribes_slowly_has_only_the_rest_of_its_wait_for_the_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(async_transport, "time", Mock(monotonic=lambda: now))

    async def run(seconds: float, work: Any, *_: Any) -> Any:
        nonlocal now
        if work == inside.check:  # Redis does not answer
            now += seconds
            raise OUTAGE
        now += 20
        return MagicMock()

    async def check() -> None:
        nonlocal inside
        inside = AsyncChat.from_url("redis://localhost:1")._transport
        monkeypatch.setattr(inside._checks, "run", run)
        await inside.wait(wait.Wait(Mock(), 25, client_timeout=1000, now=0))

    inside: Any = None
    with pytest.raises(RedisConnectionError):
        asyncio.run(check())
    assert now == 25 + wait.GRACE


@pytest.mark.parametrize("client", [Redis(port=1, max_connections=1), Mock(spec=["execute_command", "get", "set"])])
def test_a_client_that_cannot_wait_is_told_so(client: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"must be (at least 2|redis-py's own client) to wait"):
        Chat(client).check_messages("bob", "lobby", wait=1)


def test_both_faces_have_the_same_names_and_arguments() -> None:
    import inspect  # noqa: PLC0415

    def face(of: type) -> dict[str, str]:
        names = {name for name in vars(of) if not name.startswith("_")}
        return {name: str(inspect.signature(getattr(of, name)).replace(return_annotation="")) for name in names}

    sync, other = face(Chat), face(AsyncChat)
    sync["aclose"] = sync.pop("close")
    assert sync == other
