"""The chat against a plain model of it: any order of send, check, clean and leave."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from lab import Lab, keys

from tasks import cleaning

if TYPE_CHECKING:
    from redis import Redis

pytestmark = pytest.mark.on_cluster

CHANNELS = st.sampled_from(["lobby", "lobby2", "{x}"])
CLIENTS = st.sampled_from(["bob", "eve"])
BACKLOG, HARD_BACKLOG = 3, 6


@dataclass
class Channel:
    """What a channel is, said plainly."""

    trimmed: int
    log: list[int] = field(default_factory=list)  # bodies
    positions: dict[str, int] = field(default_factory=dict)
    stamped: bool = False  # has an entry in `updated`

    @property
    def last(self) -> int:
        return self.trimmed + len(self.log)

    def drop(self, count: int) -> None:
        self.log = self.log[count:]
        self.trimmed += count


class ChatMachine(RuleBasedStateMachine):
    redis: Redis

    @initialize()
    def begin(self) -> None:
        self.redis.flushdb()
        self.lab = Lab(self.redis, shards=1, backlog=BACKLOG, hard_backlog=HARD_BACKLOG)
        self.channels: dict[str, Channel] = {}
        self.floor = 0
        self.sent = 0
        self.cursors: list[tuple[str, str, int]] = []

    def channel(self, name: str) -> Channel:
        return self.channels.setdefault(name, Channel(self.floor))

    @rule(name=CHANNELS)
    def send(self, name: str) -> None:
        channel = self.channel(name)
        self.sent += 1
        channel.log.append(self.sent)
        channel.stamped = True
        assert self.lab.send(name, self.sent).id == channel.last
        channel.drop(max(0, len(channel.log) - HARD_BACKLOG))

    @rule(name=CHANNELS, client=CLIENTS, limit=st.none() | st.integers(1, 4), history=st.integers(0, 4))
    def check(self, name: str, client: str, limit: int | None, history: int) -> None:
        channel = self.channel(name)
        new = client not in channel.positions
        start = channel.last - min(history, len(channel.log)) if new else channel.positions[client]
        self.expect(name, client, limit, start, self.lab.check(client, name, limit=limit, history=history), new=new)

    @rule(data=st.data(), client=CLIENTS, limit=st.none() | st.integers(1, 4))
    def check_after(self, data: st.DataObject, client: str, limit: int | None) -> None:
        if self.cursors:
            name, cursor, position = data.draw(st.sampled_from(self.cursors))
            self.channel(name)
            self.expect(
                name, client, limit, position, self.lab.check(client, name, limit=limit, after=cursor), new=False
            )

    def expect(self, name: str, client: str, limit: int | None, start: int, check: Any, *, new: bool) -> None:
        channel = self.channels[name]
        missed = max(0, channel.trimmed - start)
        unread = channel.log[start + missed - channel.trimmed :]
        expected = unread[:limit]
        position = start + missed + len(expected)
        assert [message.body for message in check] == expected
        assert [message.id for message in check] == list(range(position - len(expected) + 1, position + 1))
        assert (check.new, check.missed, check.more) == (new, missed, len(expected) < len(unread))
        channel.positions[client] = position
        self.cursors.append((name, check.cursor, position))

    @rule(name=CHANNELS)
    def remove(self, name: str) -> None:
        channel = self.channels.get(name)
        if channel and channel.stamped:
            self.lab.idle(name, 1000)
            assert cleaning.clean_channels(self.redis, settings=self.lab.settings).messages == len(channel.log)
            channel.drop(len(channel.log))
            channel.stamped = False
            self.fold(name)

    @rule(name=CHANNELS, client=CLIENTS)
    def leave(self, name: str, client: str) -> None:
        channel = self.channels.get(name)
        if channel and client in channel.positions:
            self.lab.away(client, name, 1000)
            assert cleaning.clean_clients(self.redis, settings=self.lab.settings).clients == 1
            del channel.positions[client]
            self.fold(name)

    @rule(backlog=st.integers(0, 4))
    def trim(self, backlog: int) -> None:
        excess = {name: max(0, len(channel.log) - backlog) for name, channel in self.channels.items()}
        report = cleaning.clean_backlog(self.redis, backlog=backlog, settings=self.lab.settings)
        assert report.messages == sum(excess.values())
        for name, count in excess.items():
            self.channels[name].drop(count)

    @rule()
    def flush_scripts(self) -> None:
        self.redis.script_flush()

    def fold(self, name: str) -> None:
        channel = self.channels[name]
        if not channel.stamped and not channel.positions:
            self.floor = max(self.floor, channel.last)
            del self.channels[name]

    @invariant()
    def redis_holds_what_the_model_holds(self) -> None:
        logged = {name: len(channel.log) for name, channel in self.channels.items() if channel.stamped}
        trimmed = {name: channel.trimmed for name, channel in self.channels.items()}
        polled = {name: 0 for name, channel in self.channels.items() if channel.positions}
        stored = self.redis.pipeline(transaction=False)
        stored.zrange("chat:{0}:sizes", 0, -1, withscores=True)
        stored.hgetall("chat:{0}:trimmed")
        stored.zcard("chat:{0}:heads")
        stored.zrange("chat:{0}:polled", 0, -1)
        stored.hmget("chat:{0}:meta", "clients", "sent", "removed")
        sizes, ids, heads, clients, counted = stored.execute()
        assert dict(sizes) == encoded(logged)
        assert {k: int(v) for k, v in ids.items()} == encoded(trimmed)
        assert heads == sum(1 for size in logged.values() if size)
        assert set(clients) == set(encoded(polled))
        known, sent, removed = (int(count or 0) for count in counted)
        assert known == sum(len(channel.positions) for channel in self.channels.values())
        assert sent - removed == sum(logged.values())
        allowed = {b"chat:shards", b"chat:runs", *(f"chat:{{0}}:{k}".encode() for k in SHARD_KEYS)}
        for name, channel in self.channels.items():
            allowed |= {f"chat:{{0}}:log:{name}".encode()} if channel.log else set()
            if channel.positions:
                allowed |= {f"chat:{{0}}:{kind}:{name}".encode() for kind in ("seen", "read")}
        assert set(keys(self.redis)) <= allowed


SHARD_KEYS = ["updated", "sizes", "heads", "polled", "trimmed", "meta", "sent:0", "sent:1"]


def encoded(by_name: dict[str, Any]) -> dict[bytes, Any]:
    return {name.encode(): value for name, value in by_name.items()}


@pytest.mark.timeout(600)
def test_any_order_of_calls_agrees_with_the_model(redis: Redis) -> None:
    machine = type("Machine", (ChatMachine,), {"redis": redis})
    quiet = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=quiet, derandomize=True
        ),
    )
