"""How much Redis, and how many workers, a chat of some size takes: arithmetic from measured figures, no Redis here.

The figures are of redis-server 7.0.15 (jemalloc) and Valkey 9.1.2 (libc), one client without pipelining, on two
shared cores of November 2026. A test holds those of memory and network against a real server; those of time are only
stated. Where a load can vary the worst case is taken: each send overflows a backlog, no token is shared, and a
channel is removed as early as its timeout allows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil, exp, floor
from typing import TYPE_CHECKING

from chat._errors import InvalidArgumentError
from chat.settings import SHARDS_LIMIT
from tasks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ENGINES", "Engine", "Load", "Sizing", "SweepSizing", "size_up"]

# Memory, in bytes. A log is a listpack up to 8 kB and a list of them beyond, which costs the same within a few percent.
ENTRY = 17  # of a message beside its body: 13 digits and a colon, the listpack's 3
STATE = 34  # of a client beside its name's two copies: its time, its position (4 digits, twice) and token
ROUNDED = 1.08  # what an allocator's size classes add to a listpack
LOG_NAMES, CLIENT_NAMES = 4, 3  # copies of a channel's name: of its log and indexes, of its clients' keys and index
SMALL_CLIENTS, SMALL_NAME = 128, 64  # up to these a listpack holds a channel's clients, then a skiplist and a hash

# The server's time, in microseconds, its network and system calls included: a script alone takes 10 to 16 of them.
SEND_US, CHECK_US = 40, 40  # `check_many` of twenty channels took 14 for each of them: this counts single checks
READ_US = 0.4  # of each message that a check returns
CLEAN_US = 10  # of each channel that a sweep handles
WORKER_CLEANS = 80_000  # channels a second that one worker process handles, of any sweep

# Network, in bytes, beside names and bodies: nine or seven keys with the prefix "chat" are most of a call.
SEND_IN, SEND_OUT = 330, 28
CHECK_IN, CHECK_OUT = 282, 63
READ_OUT = 22  # of each message that a check returns
SEND_NAMES, CHECK_NAMES = 2, 5  # copies of a name in a call

# What is left free.
SPARE = 1.25  # maxmemory above the bare sum: growth, uneven shards, Celery's keys
BESIDE = 1.5  # a machine's memory above maxmemory: pages copied while a snapshot is written, fragmentation, replicas
BUSY = 0.5  # of one core that commands may take on a node, of its interval that a sweep may, of its time a worker
NODE_MEMORY = 25e9  # maxmemory of a node; a larger one takes minutes to load and to copy
SHARDS_PER_NODE = 32  # on a cluster of equal slot ranges the fullest node is then at most a third above the mean
LONGEST_RUN = 30  # seconds, of one task; it stops at 40
NETWORK = 625e6  # bytes a second of a node, half of 10 Gbit/s
MOST_NODES = 1000  # the cluster specification's own limit

MOST = 1e12  # of anything that is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Bytes of memory that differ between servers.

    Attributes:
        channel: of a channel with a message, beside its name and its log's content: a key and four index entries.
        connected: of a channel's first client, beside names and states: two keys and an index entry.
        seen: of a client's time where there are too many for a listpack, beside its name.
        read: of its position, likewise.
        token: of a recent send.
    """

    channel: int
    connected: int
    seen: int
    read: int
    token: int


ENGINES = {
    "redis": Engine(channel=569, connected=288, seen=105, read=72, token=72),
    "valkey": Engine(channel=319, connected=222, seen=66, read=53, token=45),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a chat has to carry.

    Attributes:
        channels: stored at once.
        messages: stored in a channel, on average.
        clients: connected to a channel, on average.
        rate: messages sent a second, in all channels.
        poll: seconds between two checks of a client.
        body: bytes of a message, as JSON.
        name: bytes of a channel's name, and of a client's.
        engine: ``redis`` or ``valkey``.
        node_memory: bytes, the highest maxmemory of a node.

    Raises:
        InvalidArgumentError: a value that is not allowed.
    """

    channels: float
    messages: float
    clients: float
    rate: float
    poll: float = 5
    body: float = 100
    name: float = 10
    engine: str = "redis"
    node_memory: float = NODE_MEMORY

    def __post_init__(self) -> None:
        """Hold every value against what is allowed."""
        lows = {"channels": 1, "messages": 0, "clients": 0, "rate": 0, "poll": 0.01, "body": 1, "name": 1}
        for name, low in (lows | {"node_memory": 1e6}).items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= MOST:
                message = f"{name} is {value!r}, must be a number from {low:g} to {MOST:g}"
                raise InvalidArgumentError(message)
        if self.engine not in ENGINES:
            message = f"engine is {self.engine!r}, must be {' or '.join(ENGINES)}"
            raise InvalidArgumentError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSizing:
    """One sweep.

    Attributes:
        due: channels a second that become due, at most.
        every: seconds between two runs, as it should be set.
        seconds: that each of a run's tasks takes.
    """

    due: float
    every: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """What a load takes. Memory in bytes, in all nodes; replicas not counted, each takes as much again.

    Attributes:
        messages: the channels' logs, without their keys.
        clients: their times and positions.
        indexes: keys of the logs, and what the sweeps ask.
        tokens: of recent sends.
        memory: the sum.
        maxmemory: what to set, with room to grow.
        machine_memory: what the machines need, with room to write a snapshot.
        checks: a second.
        reads: messages that checks return a second.
        cores: of the server's, by kind: ``sends``, ``checks``, ``reads``, ``cleaning``.
        nodes: Redis primaries.
        nodes_by_memory: that the memory alone would take.
        nodes_by_cpu: that the server's time alone would take.
        bytes_in: a second, to each node.
        bytes_out: a second, from each node.
        shards: CHAT_SHARDS.
        parts: CHAT_CLEAN_PARTS.
        workers: processes.
        sweeps: by name.
        warnings: what is beyond reason, a line each.
    """

    messages: float
    clients: float
    indexes: float
    tokens: float
    memory: float
    maxmemory: float
    machine_memory: float
    checks: float
    reads: float
    cores: dict[str, float]
    nodes: int
    nodes_by_memory: int
    nodes_by_cpu: int
    bytes_in: float
    bytes_out: float
    shards: int
    parts: int
    workers: int
    sweeps: dict[str, SweepSizing] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def size_up(load: Load, settings: Settings | None = None) -> Sizing:
    """Return what a load takes.

    Args:
        load: what is to be carried.
        settings: timeouts, intervals and windows; None for the defaults.
    """
    settings = settings or Settings()
    engine = ENGINES[load.engine]
    messages = load.channels * _log(load)
    clients = load.channels * _clients(load, engine)
    indexes = load.channels * (engine.channel + LOG_NAMES * load.name)
    tokens = load.rate * 2 * settings.dedupe_seconds * engine.token
    memory = messages + clients + indexes + tokens
    maxmemory = SPARE * memory
    checks, reads = load.channels * load.clients / load.poll, load.rate * load.clients
    due = _due(load, settings)
    spent = {"sends": load.rate * SEND_US, "checks": checks * CHECK_US, "reads": reads * READ_US}
    cores = {kind: us / 1e6 for kind, us in (spent | {"cleaning": sum(due.values()) * CLEAN_US}).items()}
    by_memory, by_cpu = ceil(maxmemory / load.node_memory), ceil(sum(cores.values()) / BUSY)
    nodes = max(by_memory, by_cpu, 1)
    shards = min(max(settings.shards, _power(nodes * SHARDS_PER_NODE if nodes > 1 else 1)), SHARDS_LIMIT)
    parts = min(max(settings.clean_parts, _power(max(due.values()) / WORKER_CLEANS / BUSY)), shards)
    sizing = Sizing(
        messages=messages,
        clients=clients,
        indexes=indexes,
        tokens=tokens,
        memory=memory,
        maxmemory=maxmemory,
        machine_memory=BESIDE * maxmemory,
        checks=checks,
        reads=reads,
        cores=cores,
        nodes=nodes,
        nodes_by_memory=by_memory,
        nodes_by_cpu=by_cpu,
        bytes_in=(
            load.rate * (SEND_IN + SEND_NAMES * load.name + load.body) + checks * (CHECK_IN + CHECK_NAMES * load.name)
        )
        / nodes,
        bytes_out=(load.rate * SEND_OUT + checks * CHECK_OUT + reads * (load.body + READ_OUT)) / nodes,
        shards=shards,
        parts=parts,
        workers=max(1, ceil(sum(due.values()) / WORKER_CLEANS / BUSY)),
        sweeps={name: _sweep(name, rate, parts, settings) for name, rate in due.items()},
    )
    return replace(sizing, warnings=tuple(_warnings(load, settings, sizing)))


def _log(load: Load) -> float:
    """Return the bytes that a channel's messages take."""
    return load.messages * (load.body + ENTRY) * ROUNDED


def _clients(load: Load, engine: Engine) -> float:
    """Return the bytes that a channel's clients take; with less than one a channel, some channels have none."""
    each = (STATE + 2 * load.name) * ROUNDED
    if load.clients > SMALL_CLIENTS or load.name > SMALL_NAME:
        each = engine.seen + engine.read + 2 * load.name
    return min(load.clients, 1) * (engine.connected + CLIENT_NAMES * load.name) + load.clients * each


def _due(load: Load, settings: Settings) -> dict[str, float]:
    """Return how many channels a second become due for each sweep, at most."""
    every = _every("clean_backlog", settings)
    return {
        "clean_channels": min(load.rate, load.channels / settings.channel_timeout),
        "clean_backlog": load.channels * (1 - exp(-load.rate * every / load.channels)) / every,
        "clean_clients": load.channels * min(load.clients, 1) / settings.client_timeout,
    }


def _every(sweep: str, settings: Settings) -> float:
    """Return a sweep's interval; of a cron expression the default's, for it has none."""
    return settings.interval(sweep) or Settings().interval(sweep) or LONGEST_RUN


def _sweep(name: str, due: float, parts: int, settings: Settings) -> SweepSizing:
    load = due / WORKER_CLEANS / parts
    every = _every(name, settings)
    if load * every > LONGEST_RUN:
        every = max(1, floor(LONGEST_RUN / load))
    return SweepSizing(due=due, every=every, seconds=load * every)


def _power(count: float) -> int:
    """Return the lowest power of two that is at least `count`."""
    return 1 << max(0, ceil(count) - 1).bit_length()


def _warnings(load: Load, settings: Settings, sizing: Sizing) -> Iterator[str]:
    kept = load.rate * settings.channel_timeout
    fullest = _log(load) + _clients(load, ENGINES[load.engine])
    busiest = load.clients / load.poll * CHECK_US + load.rate / load.channels * (SEND_US + load.clients * READ_US)
    traffic = max(sizing.bytes_in, sizing.bytes_out)
    lines = {
        f"messages over CHAT_MAX_MESSAGE_BYTES, {settings.max_message_bytes:,}, are refused": (
            load.body > settings.max_message_bytes
        ),
        f"a channel keeps CHAT_BACKLOG, {settings.backlog:,} messages: the others go": load.messages > settings.backlog,
        f"{load.rate:,.0f} sends a second keep {kept:,.0f} channels alive: the others are idle and go": (
            load.channels > kept
        ),
        f"clients are forgotten after CHAT_CLIENT_TIMEOUT, {settings.client_timeout:g} s: poll more often": (
            load.clients > 0 and load.poll >= settings.client_timeout
        ),
        "one channel alone is more than a node holds, and lies on one": fullest > load.node_memory / SPARE,
        f"one channel alone takes {busiest / 1e6:.1f} cores, and lies on one node": busiest / 1e6 > BUSY,
        f"{traffic / NETWORK:.1f} times half of a 10 Gbit/s network at each node": traffic > NETWORK,
        f"{sizing.nodes:,} nodes are more than a cluster's {MOST_NODES:,}: check less often": sizing.nodes > MOST_NODES,
    }
    lines |= {
        f"{name} takes {sweep.seconds:.0f} s of every {sweep.every:g} s: it falls behind": (
            sweep.seconds > BUSY * sweep.every
        )
        for name, sweep in sizing.sweeps.items()
    }
    yield from (line for line, beyond in lines.items() if beyond)
