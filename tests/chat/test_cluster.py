"""Redis Cluster: slots that move and primaries that die while the chat goes on, and a daemon beside it."""

from __future__ import annotations

import random
import threading
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from clusters import Cluster, ask
from lab import Blocking, Lab, bodies, keys
from redis import Redis
from redis.cluster import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from servers import BINARIES, Program, Server, beat, eventually, every, run, worker

from chat import Chat, ChatError, ChecksFailedError
from chat.store.connect import connect
from tasks.cleaning import clean_backlog, clean_channels, clean_clients
from tasks.settings import Settings
from tasks.stats.figures import read_stats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

ROOMS = [f"room {number}" for number in range(24)]
SETTINGS = Settings(backlog=20)


@pytest.fixture(params=BINARIES)
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(request.param, tmp_path, replicas=1) as cluster:
        yield cluster


class Traffic:
    """Threads that do their work again and again, each with a chat of its own, until they are stopped."""

    def __init__(self, url: str) -> None:
        self.url, self.stopped, self.errors = url, threading.Event(), Counter[str]()
        self.threads: list[threading.Thread] = []

    def add(self, work: Callable[[Chat], Any]) -> None:
        def turn() -> None:
            chat = Chat.from_url(self.url, settings=SETTINGS)
            while not self.stopped.is_set():
                try:
                    work(chat)
                except (ChatError, RedisError) as error:
                    self.errors[type(error).__name__] += 1

        self.threads.append(threading.Thread(target=turn))
        self.threads[-1].start()

    def stop(self) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()


@pytest.fixture
def traffic(cluster: Cluster) -> Iterator[Traffic]:
    traffic = Traffic(cluster.url)
    yield traffic
    traffic.stop()


def slot_of(cluster: Cluster, channel: str) -> int:
    with cluster.client() as client:
        return int(client.keyslot(Lab(client).key(channel, "updated")))


def test_slots_move_while_traffic_runs(cluster: Cluster, traffic: Traffic) -> None:
    sent: Counter[str] = Counter()
    seen: dict[str, list[int]] = defaultdict(list)
    missed: Counter[str] = Counter()
    readers = Chat.from_url(cluster.url)
    readers.check_many("bob", ROOMS)
    numbers = iter(range(10**9))

    def send(chat: Chat) -> None:
        channel = random.choice(ROOMS)
        key = f"{next(numbers)}"
        while True:  # until it is acknowledged
            try:
                chat.send_message(channel, key, key=key)
            except RedisConnectionError:
                continue
            sent[channel] += 1
            return

    cursors: dict[str, str] = {}

    def read(chat: Chat) -> None:
        try:
            checks = chat.check_many("bob", {channel: cursors.get(channel) for channel in ROOMS})
        except ChecksFailedError as error:
            checks = dict(error.checks)
        for channel, check in checks.items():
            cursors[channel] = check.cursor
            seen[channel] += [message.id for message in check]
            missed[channel] += check.missed

    traffic.add(send)
    traffic.add(read)
    traffic.add(lambda chat: clean_backlog(chat._transport.client, settings=SETTINGS))
    moved = 0
    for channel in ROOMS[:8]:
        slot = slot_of(cluster, channel)
        owner = cluster.owner(slot)
        target = next(node for node in cluster.primaries() if node is not owner)
        before = sum(sent.values())
        cluster.move(slot, target)
        moved += 1
        eventually(lambda before=before: sum(sent.values()) > before + 20)
    traffic.stop()
    read(readers)
    assert moved == 8
    assert not traffic.errors.keys() - {"ConnectionError"}  # of a sweep: the next one goes on
    for channel in ROOMS:
        assert seen[channel] == sorted(set(seen[channel])), channel
        assert len(seen[channel]) + missed[channel] == sent[channel], channel
    clean_all(cluster)


def test_a_call_waits_while_its_slot_moves(cluster: Cluster) -> None:
    chat = Chat.from_url(cluster.url)
    chat.send_message("lobby", "x")
    slot = slot_of(cluster, "lobby")
    target = next(node for node in cluster.primaries() if node is not cluster.owner(slot))
    source = cluster.begin_move(slot, target)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(chat.send_message, "lobby", "y")
        attempt = RedisCluster.RedisClusterRequestTTL
        eventually(lambda: tried_again(source) > attempt)  # redis-py itself gives up after so many
        cluster.move_keys(slot, target)
        cluster.end_move(slot, source, target)
        assert sent.result().id == 2


@pytest.mark.parametrize("face", ["sync", "async"], indirect=True)
def test_a_call_cannot_reach_a_slot_that_moves_to_a_new_node_but_says_so(cluster: Cluster, tmp_path: Path) -> None:
    target = cluster.join(tmp_path / "new")
    with cluster.client() as client:
        lab = Lab(client)
        chat = lab.chat if isinstance(lab.chat, Blocking) else Chat.from_url(cluster.url)
        chat.send_message("lobby", "x")
        slot = slot_of(cluster, "lobby")
        source = cluster.begin_move(slot, target)
        cluster.move_keys(slot, target)
        with pytest.raises(RedisConnectionError):
            chat.send_message("lobby", "y")
        cluster.end_move(slot, source, target)
        assert chat.send_message("lobby", "y").id == 2


def tried_again(server: Server) -> int:
    with server.client() as client:
        return int(client.info("errorstats").get("errorstat_TRYAGAIN", {}).get("count", 0))


def test_a_dead_primarys_replica_takes_over(cluster: Cluster, traffic: Traffic) -> None:
    chat = Chat.from_url(cluster.url, settings=SETTINGS)
    for channel in ROOMS:
        for number in range(5):
            chat.send_message(channel, number)
    assert all(ask(node, "WAIT", 1, 5000) for node in cluster.primaries())
    kept: dict[str, list[str]] = defaultdict(list)
    after = threading.Event()
    numbers = iter(range(10**9))

    def send(chat: Chat) -> None:
        channel, key = random.choice(ROOMS), f"{next(numbers)}"
        was_after = after.is_set()
        chat.send_message(channel, key, key=key)
        if was_after:
            kept[channel].append(key)

    for _ in range(3):
        traffic.add(send)
    victim = cluster.owner(slot_of(cluster, ROOMS[0]))
    cluster.kill(victim)
    after.set()
    eventually(lambda: kept.keys() == set(ROOMS))
    traffic.stop()
    assert not traffic.errors.keys() - {"ConnectionError", "TimeoutError"}
    for channel in ROOMS:
        check = chat.check_messages("auditor", channel, history=10**6)
        assert bodies(check)[:5] == list(range(5)), channel
        assert [message.id for message in check] == list(range(1, len(check) + 1))
        counted = Counter(map(str, bodies(check)[5:]))
        assert {counted[key] for key in kept[channel]} == {1}, channel
    cluster.restart(victim)
    clean_all(cluster)


def clean_all(cluster: Cluster) -> None:
    """Sweep everything away, and see that nothing is left that belongs to nobody."""
    client = connect(cluster.url)
    assert clean_backlog(client, backlog=0, settings=SETTINGS).completed
    assert clean_channels(client, channel_timeout=0, settings=SETTINGS).completed
    assert clean_clients(client, client_timeout=0, settings=SETTINGS).completed
    stats = read_stats(client, settings=SETTINGS)
    assert (stats.channels, stats.messages, stats.clients) == (0, 0, 0)
    kept = (b":meta", b":runs", b":shards", b":sent:0", b":sent:1")
    assert [key for key in keys(client) if not key.endswith(kept)] == []


def test_a_cluster_that_is_away_is_redis_pys_own_error(tmp_path: Path) -> None:
    with pytest.raises(RedisConnectionError):
        connect("redis+cluster://127.0.0.1:1", retries=0)
    with Cluster("valkey", tmp_path) as cluster:
        chat = Chat.from_url(cluster.url)
        chat.check_many("bob", ROOMS)
        dead = cluster.nodes[0]
        dead.stop()
        with pytest.raises((ChecksFailedError, RedisConnectionError)):
            chat.check_many("bob", ROOMS)
        for node in cluster.nodes[1:]:
            node.stop()
        with pytest.raises((RedisConnectionError, RedisTimeoutError)):
            chat.send_message("lobby", "x")


def test_the_daemon_cleans_a_cluster_with_its_broker_elsewhere(cluster: Cluster, tmp_path: Path) -> None:
    broker = Server("valkey", tmp_path).start()
    environment = {"REDIS_URL": cluster.url, "CHAT_BROKER_URL": broker.url} | every(0.5)
    programs: list[Program] = [worker(tmp_path, environment).start(), beat(tmp_path, environment).start()]
    try:
        lab = Lab(cluster.client())
        works(lab)
        lab.send("tea", "kept")
        assert run("-m", "chat", "check", "bob", "tea", **environment).stdout.endswith("  kept\n")
        assert "channels 1, messages 1" in run("-m", "celery", "-A", "tasks", "stats", **environment).stdout
        eventually(lambda: "0 taken" in run("-m", "celery", "-A", "tasks", "stats", **environment).stdout)
        done = run("-m", "celery", "-A", "tasks", "clean", "all", **environment)
        assert (done.returncode, done.stderr) == (0, "")
        cluster.kill(cluster.owner(slot_of(cluster, "canary")))
        works(lab)
        assert "Traceback" not in "".join(program.output for program in programs)
        assert keys(Redis(port=broker.port), "chat:celery:*")
        assert not keys(lab.redis, "chat:celery:*")
    finally:
        for program in programs:
            program.stop()
        broker.stop()


def works(lab: Lab) -> None:
    """Wait until beat sends and the worker cleans: seen from a channel that goes."""
    lab.send("canary", "x")
    lab.idle("canary", 901)
    eventually(lambda: not lab.traces("canary"), 30)
