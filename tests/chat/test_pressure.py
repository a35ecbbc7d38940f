"""Many threads and tasks on one chat, cancelled tasks, and servers that do not answer."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from clusters import Cluster, ask
from lab import Lab, at_once, bodies
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from servers import BINARIES, Server, eventually, run

from chat import AsyncChat, Chat, ChecksFailedError
from chat.store.connect import connect_async
from chat.store.nodes import Command, nodes, run_all_async
from chat.waiting import registry, wait
from chat.waiting.gate import Gate

if TYPE_CHECKING:
    from pathlib import Path

ROOMS = [f"room {number}" for number in range(24)]
UNCOVERED = {"cluster-require-full-coverage": "no"}  # the living go on when one is gone


def rooms_of(cluster: Cluster, server: Server) -> list[str]:
    """Return the rooms that a server of a cluster has."""
    with cluster.client() as client:
        lab = Lab(client)
        owners = {room: client.get_node_from_key(lab.key(room, "log:")) for room in ROOMS}
    return [room for room, owner in owners.items() if owner.port == server.port]


@pytest.mark.parametrize("engine", BINARIES)
@pytest.mark.parametrize("face", ["sync", "async"], indirect=True)
def test_a_dead_server_costs_the_channels_of_the_others_nothing(engine: str, tmp_path: Path) -> None:
    with Cluster(engine, tmp_path, options=UNCOVERED) as cluster, cluster.client() as client:
        lab = Lab(client)
        lab.chat.check_many("bob", ROOMS)
        lost = rooms_of(cluster, cluster.nodes[0])
        cluster.nodes[0].stop(signal.SIGKILL)
        for number in range(3):
            for room in set(ROOMS) - set(lost):
                lab.send(room, number)
            with pytest.raises(ChecksFailedError) as caught:
                lab.chat.check_many("bob", [*lost, *ROOMS])
            assert sorted(caught.value.errors) == sorted(lost)
            assert {room: bodies(check) for room, check in caught.value.checks.items()} == {
                room: [number] for room in ROOMS if room not in lost
            }


@pytest.mark.parametrize("engine", BINARIES)
def test_sends_do_not_queue_behind_waiters_of_a_silent_server(engine: str, tmp_path: Path) -> None:
    async def send(cluster: Cluster) -> None:
        silent = cluster.nodes[0]
        held = rooms_of(cluster, silent)
        open_room = next(room for room in ROOMS if room not in held)
        async with AsyncChat.from_url(cluster.url) as chat:
            await chat.check_many("bob", ROOMS)
            silent.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
            try:
                waits = [
                    asyncio.create_task(chat.check_messages(f"c{number}", held[0], wait=30)) for number in range(150)
                ]
                await asyncio.sleep(0)
                async with asyncio.timeout(4):  # less than one time-out of a reply
                    while (await chat.send_message(open_room, "hi")).id < 20:
                        assert not any(waiter.done() for waiter in waits)
            finally:
                silent.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
            for waiter in waits:
                waiter.cancel()
            await asyncio.wait(waits)

    with Cluster(engine, tmp_path, options=UNCOVERED) as cluster:
        asyncio.run(send(cluster))


@pytest.mark.parametrize("engine", BINARIES)
@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_waits_of_tasks_end_in_time_whatever_the_server_does(engine: str, how: signal.Signals, tmp_path: Path) -> None:
    async def outage(server: Server) -> list[Any]:
        async with AsyncChat(connect_async(server.url, timeout=60)) as chat:
            waits = [asyncio.create_task(chat.check_messages(f"c{n}", "lobby", wait=4)) for n in range(200)]
            while await chat.count_clients("lobby") < len(waits):
                assert not any(waiter.done() for waiter in waits)
            server.process.send_signal(how)  # type: ignore[union-attr]
            async with asyncio.timeout(10):  # the wait, its grace period, and what a busy machine takes
                ended = await asyncio.gather(*waits, return_exceptions=True)
            if left := set(chat._transport._checks._ending):
                await asyncio.wait(left, timeout=30)  # less than one time-out of a reply
            assert not chat._transport._checks._ending
            return ended

    server = Server(engine, tmp_path).start()
    try:
        ended = asyncio.run(outage(server))
    finally:
        server.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
        server.stop(signal.SIGKILL)
    assert {type(error) for error in ended} <= {RedisConnectionError, RedisTimeoutError}


@pytest.mark.parametrize("engine", BINARIES)
@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_waits_of_threads_end_in_time_whatever_the_server_does(
    engine: str, how: signal.Signals, tmp_path: Path
) -> None:
    ended: list[Exception] = []
    server = Server(engine, tmp_path).start()
    chat = Chat.from_url(server.url)

    def work(number: int) -> None:
        try:
            chat.check_messages(f"c{number}", "lobby", wait=1.5)
        except Exception as error:  # noqa: BLE001  the test looks at it
            ended.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    eventually(lambda: chat.count_clients("lobby") == len(threads))
    server.process.send_signal(how)  # type: ignore[union-attr]
    until = time.monotonic() + 6
    try:
        for thread in threads:
            thread.join(until - time.monotonic())
        assert not any(thread.is_alive() for thread in threads)
        assert {type(error) for error in ended} <= {RedisConnectionError, RedisTimeoutError}
        assert len(ended) == len(threads)
    finally:
        server.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
        server.stop(signal.SIGKILL)
        chat.close()


def test_a_hundred_and_fifty_threads_share_a_chat(lab: Lab) -> None:
    failed: list[Exception] = []

    def work(number: int) -> None:
        try:
            lab.send("lobby", number)
            lab.check(f"c{number}", "lobby")
        except Exception as error:  # noqa: BLE001  the test looks at it
            failed.append(error)

    lab.chat.count_clients("lobby")
    for node in nodes(lab.redis):
        node.client_pause(500)  # all of them are at Redis at once
    threads = [threading.Thread(target=work, args=(number,)) for number in range(150)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert lab.chat.count_clients("lobby") == 150


def test_threads_wait_for_a_connection_of_a_small_pool(server: Server) -> None:
    failed: list[Exception] = []
    with server.client() as redis, Chat(Redis(port=server.port, max_connections=4)) as chat:
        chat.count_clients("lobby")
        redis.client_pause(200)

        def work() -> None:
            try:
                chat.send_message("lobby", "hi")
            except Exception as error:  # noqa: BLE001  the test looks at it
                failed.append(error)

        at_once(work, 20)
    assert not failed


def test_who_came_first_gets_the_next_connection() -> None:
    gate = Gate(Redis(port=1, max_connections=3))
    order = []

    def second() -> None:
        with gate:
            order.append("second")

    with gate:
        waiter = threading.Thread(target=second)
        waiter.start()
        eventually(lambda: gate._queue)
    with gate:
        order.append("first again")
    waiter.join()
    assert order == ["second", "first again"]


@pytest.mark.parametrize("admitted", [False, True])
def test_a_caller_that_a_signal_ends_in_the_queue_leaves_its_place(admitted: bool) -> None:  # noqa: FBT001  a table
    gate = Gate(Redis(port=1, max_connections=3))
    main = threading.get_ident()

    def interrupt(*_: Any) -> None:
        if admitted:  # just before
            gate._give_back()
        raise KeyboardInterrupt

    def send_signal() -> None:
        eventually(lambda: gate._queue)
        signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    assert gate._take(0)
    sender = threading.Thread(target=send_signal)
    sender.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            gate._take(20)
    finally:
        signal.signal(signal.SIGUSR1, before)
        sender.join()
    if not admitted:
        gate._give_back()
    assert (gate._free, list(gate._queue)) == (1, [])


def test_a_child_of_a_fork_does_not_wait_for_calls_of_its_parent(server: Server) -> None:
    program = (
        "import os, sys, threading\n"
        "from redis import Redis\n"
        "from chat import Chat\n"
        "chat = Chat(Redis(port=int(sys.argv[1]), max_connections=3))\n"
        "chat.check_messages('bob', 'lobby', wait=0.1)\n"
        "Redis(port=int(sys.argv[1])).client_pause(1000)\n"
        "threads = [threading.Thread(target=chat.send_message, args=('lobby', 'hi'), daemon=True) for _ in range(3)]\n"
        "[thread.start() for thread in threads]\n"
        "while chat._transport._gate._free: pass\n"
        "if not os.fork():\n"
        "    chat.send_message('lobby', 'from the child')\n"
        "    chat.check_messages('ann', 'lobby', wait=0.1)\n"
        "    chat.close()\n"
        "    os._exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
    )
    done = run("-c", program, str(server.port))
    assert (done.returncode, done.stderr) == (0, "")


class Readers:
    """Tasks of one AsyncChat that read the rooms of a cluster's living servers while another one comes and goes."""

    def __init__(self, rooms: list[str]) -> None:
        self.rooms, self.stopped = rooms, False
        self.got: list[list[Any]] = [[] for _ in range(24)]
        self.errors: list[str] = []

    async def read(self, chat: AsyncChat, number: int) -> None:
        while not self.stopped:
            await self.check(chat, number, ROOMS)
            await asyncio.sleep(0.005)
        await self.check(chat, number, self.rooms)

    async def check(self, chat: AsyncChat, number: int, rooms: list[str]) -> None:
        try:
            checks = await chat.check_many(f"c{number}", rooms)
        except ChecksFailedError as error:
            checks = dict(error.checks)
            self.errors += [repr(error.errors[room]) for room in self.rooms if room in error.errors]
        except Exception as error:  # noqa: BLE001  the test looks at it
            self.errors.append(repr(error))
            return
        self.got[number] += [body for room in self.rooms if room in checks for body in bodies(checks[room])]


def test_a_server_that_comes_and_goes_costs_the_readers_of_the_others_nothing(tmp_path: Path) -> None:
    async def come_and_go(cluster: Cluster, readers: Readers) -> list[int]:
        sent: list[int] = []
        async with AsyncChat.from_url(cluster.url) as chat, AsyncChat.from_url(cluster.url) as other:
            await other.check_many("any", ROOMS)
            for number in range(len(readers.got)):
                await chat.check_many(f"c{number}", ROOMS)
            tasks = [asyncio.create_task(readers.read(chat, number)) for number in range(len(readers.got))]
            for _ in range(3):
                for change in (lambda: cluster.nodes[0].stop(signal.SIGKILL), cluster.nodes[0].start):
                    await asyncio.to_thread(change)
                    for _ in range(100):
                        await other.send_message(readers.rooms[len(sent) % len(readers.rooms)], len(sent))
                        sent.append(len(sent))
                        await asyncio.sleep(0.005)  # about as fast as the readers
            readers.stopped = True
            await asyncio.gather(*tasks)
        return sent

    with Cluster("valkey", tmp_path, options=UNCOVERED) as cluster:
        gone = rooms_of(cluster, cluster.nodes[0])
        readers = Readers([room for room in ROOMS if room not in gone])
        sent = asyncio.run(come_and_go(cluster, readers))
    assert readers.errors == []
    assert [sorted(got) for got in readers.got] == [sent] * len(readers.got)


async def moved_keys(client: Any, _: Cluster) -> None:
    """Send a command to a wrong node, so often that redis-py asks for the nodes again."""
    slots = client.nodes_manager.slots_cache
    for key in "abcdefghij":
        await client.get(key)
        wrong = next(node for node in client.get_primaries() if node not in slots[client.keyslot(key)])
        slots[client.keyslot(key)] = [wrong]
        await client.get(key)


async def cancelled_tasks(client: Any, cluster: Cluster) -> None:
    """Cancel tasks while they ask for the nodes again, since one is gone."""
    gone = next(key for key in "abcdefghij" if client.get_node_from_key(key).port == cluster.nodes[0].port)
    await asyncio.to_thread(cluster.nodes[0].stop, signal.SIGKILL)
    for turns in range(60):
        task = asyncio.create_task(client.get(gone))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])


async def taken_connections(client: Any, cluster: Cluster) -> None:
    """Run commands while redis-py closes free connections of their node, as it does when that failed another task."""
    own = [key for key in "abcdefghij" if client.get_node_from_key(key).port == cluster.nodes[0].port]
    commands = [Command(key.encode(), ("GET", key)) for key in own]
    node = client.get_node_from_key(own[0])
    for turns in range(200):
        for work in (lambda: run_all_async(client, commands), lambda: client.get(own[0])):
            closing = asyncio.create_task(node.disconnect_free_connections())
            for _ in range(turns % 20):
                await asyncio.sleep(0)
            assert await work() in ([None] * len(own), None)
            await closing


@pytest.mark.parametrize("trouble", [moved_keys, cancelled_tasks, taken_connections])
def test_asking_for_the_nodes_again_leaves_replies_under_way_alone(trouble: Any, tmp_path: Path) -> None:
    async def hold(cluster: Cluster) -> None:
        client: Any = connect_async(cluster.url, timeout=60)
        server = cluster.nodes[1]
        try:
            await client.get("any")
            key = next(room for room in ROOMS if client.get_node_from_key(room).port == server.port)
            held = asyncio.create_task(client.execute_command("BLPOP", key, 0))
            while not (blocked := blocked_clients(server)):  # noqa: ASYNC110  Redis sends no event
                await asyncio.sleep(0)
            await trouble(client, cluster)
            assert blocked_clients(server) == blocked
            await client.rpush(key, "x")
            assert await held == (key.encode(), b"x")
        finally:
            await client.aclose()

    with Cluster("valkey", tmp_path, options=UNCOVERED) as cluster:
        asyncio.run(hold(cluster))


def blocked_clients(server: Server) -> list[str]:
    """Return the ids of a server's clients that wait in a blocking command."""
    return [client["id"] for client in ask(server, "CLIENT LIST") if "b" in client["flags"]]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_cancelled_task_ends_wherever_it_was(server: Server, turns: int) -> None:
    async def cancel() -> int:
        async with AsyncChat.from_url(server.url) as chat:
            await chat.count_clients("lobby")

            async def listen(number: int) -> None:
                async for _ in chat.listen(f"c{number}", f"room {number}"):
                    pass

            tasks = []
            for number in range(100):
                work = listen(number) if number % 2 else chat.check_messages(f"c{number}", f"room {number}", wait=50)
                tasks.append(asyncio.create_task(work))  # type: ignore[arg-type]
                for _ in range(turns):
                    await asyncio.sleep(0)
                tasks[-1].cancel()
            _, left = await asyncio.wait(tasks, timeout=10)
            for task in left:  # those that go on
                task.cancel()
            return len(left)

    assert asyncio.run(cancel()) == 0


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_cancelled_task_that_sends_and_checks_ends(server: Server, turns: int) -> None:
    async def cancel() -> int:
        async with AsyncChat.from_url(server.url) as chat:
            await chat.count_clients("lobby")

            async def chatter(number: int) -> None:
                while True:
                    await chat.send_message(f"room {number % 10}", number)
                    await chat.check_messages("bob", f"room {number % 10}", limit=1)

            tasks = []
            for number in range(100):
                tasks.append(asyncio.create_task(chatter(number)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                tasks[-1].cancel()
            _, left = await asyncio.wait(tasks, timeout=5)
            going_on = len(left)
            while left:
                for task in left:
                    task.cancel()
                _, left = await asyncio.wait(left, timeout=0.1)
            return going_on

    assert asyncio.run(cancel()) == 0


def test_who_waits_again_while_the_name_is_unsubscribed_is_woken(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "LINGER", 0.02)
    monkeypatch.setattr(wait, "RECHECK", 1000)

    async def chatter(chat: AsyncChat, other: AsyncChat, number: int) -> int:
        room, woken = f"room {number}", 0
        for _ in range(15):
            waiter = asyncio.create_task(chat.check_messages("bob", room, wait=60))
            while not await other.count_clients(room):
                assert not waiter.done()
            await other.send_message(room, "hi")
            await asyncio.wait([waiter], timeout=20)
            woken += waiter.done()
            waiter.cancel()
            await asyncio.sleep(0.015 + number % 7 * 0.002)  # about as long as a name lingers
        return woken

    async def all_woken() -> int:
        async with AsyncChat.from_url(server.url) as chat, AsyncChat.from_url(server.url) as other:
            return sum(await asyncio.gather(*(chatter(chat, other, number) for number in range(40))))

    assert asyncio.run(all_woken()) == 40 * 15
