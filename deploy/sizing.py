#!/usr/bin/env python3
"""Print how much Redis, and how many workers, a chat of some size needs: arithmetic, no Redis is asked.

The figures are of redis-server 7.0.15 (jemalloc) and Valkey 9.1.2 (libc), one client without pipelining, on two
shared cores of November 2026. A test compares those of memory and network with a real server; those of time are only
stated. Where a load can vary, the worst case is taken: each send overflows a backlog, no token is shared, and a
channel is removed as early as its timeout allows. Timeouts, intervals and windows are those of the settings.
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from math import ceil, exp, floor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
try:
    from chat import SettingsError
    from chat.screen import size
    from tasks.settings import Settings
except ImportError as error:
    sys.exit(f"sizing.py: {error}: run ./deploy/up once, then .venv/bin/python deploy/sizing.py ...")

# Memory, in bytes. A log is a listpack up to 8 kB and a list of them beyond, which costs the same within a few percent.
ENTRY = 17  # of a message beside its body: 13 digits and a colon, the listpack's 3
STATE = 34  # of a client beside its name's two copies: its time, its position (4 digits, twice) and token
ROUNDED = 1.08  # what an allocator's size classes add to a listpack
LOG_NAMES, CLIENT_NAMES = 4, 3  # copies of a channel's name: of its log and indexes, of its clients' keys and index
SMALL_CLIENTS, SMALL_NAME = 128, 64  # up to these a listpack holds a channel's clients, then a skiplist and a hash
# The server's time, in microseconds, its network and system calls included: a script alone takes 10 to 16 of them.
SEND_US, CHECK_US = 40, 40  # `check_many` of twenty channels took 14 for each of them: this counts single checks
READ_US, CLEAN_US = 0.4, 10  # of each message that a check returns, of each channel that a sweep handles
WORKER_CLEANS = 80_000  # channels a second that one worker process handles, of any sweep
# Network, in bytes, beside names and bodies: nine or seven keys with the prefix "chat" are most of a call.
SEND_IN, SEND_OUT, CHECK_IN, CHECK_OUT = 330, 28, 282, 63
READ_OUT, SEND_NAMES, CHECK_NAMES = 22, 2, 5  # of each message that a check returns, copies of a name in a call
SPARE = 1.25  # maxmemory above the bare sum: growth, uneven shards, Celery's keys
BESIDE = 1.5  # a machine's memory above maxmemory: pages copied while a snapshot is written, fragmentation, replicas
BUSY = 0.5  # of one core that commands may take on a node, of its interval that a sweep may, of its time a worker
SHARDS_PER_NODE = 32  # on a cluster of equal slot ranges the fullest node is then at most a third above the mean
MOST_SHARDS, MOST_NODES = 16384, 1000  # the cluster specification's own limits
LONGEST_RUN = 30  # seconds, of one task; it stops at 40
# Bytes that differ between servers: of a channel with a message, beside its name and its log's content; of a channel's
# first client, beside names and states; of a client's state where there are too many for a listpack; of a recent send.
ENGINES = {"redis": (569, 288, 177, 72), "valkey": (319, 222, 119, 45)}
SWEEPS = ("clean_channels", "clean_backlog", "clean_clients")


def size_up(load: Namespace, settings: Settings) -> dict[str, Any]:
    """Return what a load needs in all nodes together, as ``--json`` prints it; replicas are not counted."""
    channel, _, _, token = ENGINES[load.engine]
    memory = {
        "messages": load.channels * log_memory(load),
        "clients": load.channels * client_memory(load),
        "indexes": load.channels * (channel + LOG_NAMES * load.name),
        "tokens": load.rate * 2 * settings.dedupe_seconds * token,
    }
    maxmemory = SPARE * sum(memory.values())
    checks, reads = load.channels * load.clients / load.poll, load.rate * load.clients
    # A cron expression has no interval and counts as the default.
    every = {name: settings.interval(name) or Settings().interval(name) or LONGEST_RUN for name in SWEEPS}
    due = channels_due(load, settings, every["clean_backlog"])
    spent = {"sends": load.rate * SEND_US, "checks": checks * CHECK_US, "reads": reads * READ_US}
    cores = {kind: us / 1e6 for kind, us in (spent | {"cleaning": sum(due.values()) * CLEAN_US}).items()}
    by_memory, by_cpu = ceil(maxmemory / load.node_memory), ceil(sum(cores.values()) / BUSY)
    nodes = max(by_memory, by_cpu, 1)
    shards = min(max(settings.shards, power_of_two(nodes * SHARDS_PER_NODE if nodes > 1 else 1)), MOST_SHARDS)
    parts = min(max(settings.clean_parts, power_of_two(max(due.values()) / WORKER_CLEANS / BUSY)), shards)
    sends_in = load.rate * (SEND_IN + SEND_NAMES * load.name + load.body)
    sweeps = {name: size_sweep(due[name], every[name], parts) for name in due}
    found = {"load": vars(load), "memory": memory, "maxmemory": maxmemory, "machine_memory": BESIDE * maxmemory}
    found |= {"checks": checks, "cores": cores, "nodes": nodes, "nodes_by_memory": by_memory, "nodes_by_cpu": by_cpu}
    found |= {
        "bytes_in": (sends_in + checks * (CHECK_IN + CHECK_NAMES * load.name)) / nodes,
        "bytes_out": (load.rate * SEND_OUT + checks * CHECK_OUT + reads * (load.body + READ_OUT)) / nodes,
        "workers": max(1, ceil(sum(due.values()) / WORKER_CLEANS / BUSY)),
    }
    found |= {"shards": shards, "parts": parts, "sweeps": sweeps}
    return found | {"warnings": warnings(load, settings, found)}


def log_memory(load: Namespace) -> float:
    """Return the bytes that a channel's messages take."""
    return load.messages * (load.body + ENTRY) * ROUNDED


def client_memory(load: Namespace) -> float:
    """Return the bytes that a channel's clients take; with less than one a channel, some channels have none."""
    _, first, state, _ = ENGINES[load.engine]
    is_small = load.clients <= SMALL_CLIENTS and load.name <= SMALL_NAME
    each = (STATE + 2 * load.name) * ROUNDED if is_small else state + 2 * load.name
    return min(load.clients, 1) * (first + CLIENT_NAMES * load.name) + load.clients * each


def channels_due(load: Namespace, settings: Settings, every: float) -> dict[str, float]:
    """Return how many channels a second become due for each sweep, at most; `every` is the backlog's interval."""
    return {
        "clean_channels": min(load.rate, load.channels / settings.channel_timeout),
        "clean_backlog": load.channels * (1 - exp(-load.rate * every / load.channels)) / every,
        "clean_clients": load.channels * min(load.clients, 1) / settings.client_timeout,
    }


def size_sweep(due: float, every: float, parts: int) -> dict[str, float]:
    """Return a sweep's interval and the seconds of a task; the interval is shortened where a task takes too long."""
    load = due / WORKER_CLEANS / parts
    if load * every > LONGEST_RUN:
        every = max(1, floor(LONGEST_RUN / load))
    return {"due": due, "every": every, "seconds": load * every}


def power_of_two(count: float) -> int:
    """Return the lowest power of two that is at least `count`."""
    return 1 << max(0, ceil(count) - 1).bit_length()


def warnings(load: Namespace, settings: Settings, found: dict[str, Any]) -> list[str]:
    """Return what is beyond reason, a line each."""
    longest, timeout, nodes = settings.max_message_bytes, settings.client_timeout, found["nodes"]
    kept = load.rate * settings.channel_timeout
    busiest = load.clients / load.poll * CHECK_US + load.rate / load.channels * (SEND_US + load.clients * READ_US)
    late = [name for name, sweep in found["sweeps"].items() if sweep["seconds"] > BUSY * sweep["every"]]
    lines = {
        f"messages over CHAT_MAX_MESSAGE_BYTES, {longest:,}, are refused": load.body > longest,
        f"a channel keeps CHAT_BACKLOG, {settings.backlog:,} messages: the others go": load.messages > settings.backlog,
        f"{load.rate:,.0f} sends a second keep {kept:,.0f} channels alive: the others go": load.channels > kept,
        f"clients are forgotten after CHAT_CLIENT_TIMEOUT, {timeout:g} s: poll more often": load.poll >= timeout,
        f"one channel alone takes {busiest / 1e6:.1f} cores, and lies on one node": busiest / 1e6 > BUSY,
        f"{nodes:,} nodes are more than a cluster's {MOST_NODES:,}: check less often": nodes > MOST_NODES,
        f"{found['parts']:,} parts fall behind: {', '.join(late)}": bool(late),
    }
    return [line for line, is_beyond in lines.items() if is_beyond]


def number(given: str) -> float:
    """Return a number such as ``250``, ``1.5k`` or ``100M``."""
    value = float(given.rstrip("kMG")) * {"k": 1e3, "M": 1e6, "G": 1e9}.get(given[-1:], 1)
    if 0 <= value <= 1e12:  # noqa: PLR2004  of anything that is asked for
        return value
    raise ValueError


def table(sizings: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table with a column for each load, and what is beyond reason."""
    rows: dict[str, Callable[[Any], str]] = {
        "channels": lambda found: f"{found['load']['channels']:,.0f}",
        "sends a second": lambda found: f"{found['load']['rate']:,.0f}",
        "checks a second": lambda found: f"{found['checks']:,.0f}",
        "memory": lambda found: size(sum(found["memory"].values())),
        "maxmemory, in all": lambda found: size(found["maxmemory"]),
        "Redis cores": lambda found: f"{sum(found['cores'].values()):,.2f}",
        "nodes by memory": lambda found: f"{found['nodes_by_memory']:,}",
        "nodes by CPU": lambda found: f"{found['nodes_by_cpu']:,}",
        "network of a node": lambda found: f"{size(max(found['bytes_in'], found['bytes_out']))}/s",
        "workers": lambda found: f"{found['workers']:,}",
        "intervals": lambda found: "/".join(f"{sweep['every']:g}" for sweep in found["sweeps"].values()) + " s",
        "longest task": lambda found: f"{max(sweep['seconds'] for sweep in found['sweeps'].values()):.2f} s",
        "CHAT_SHARDS": lambda found: str(found["shards"]),
        "CHAT_CLEAN_PARTS": lambda found: str(found["parts"]),
    }
    for name, show in rows.items():
        yield f"{name:18}" + "".join(f"{show(found):>15}" for found in sizings)
    notes = [f"{found['load']['channels']:,.0f} channels: {line}" for found in sizings for line in found["warnings"]]
    yield from (["", *notes] if notes else [])


def main() -> None:
    """Print a table, or a JSON object for each number of channels."""
    parser = ArgumentParser(description=__doc__.splitlines()[0], epilog="Numbers may end in k, M or G.")
    add = parser.add_argument
    add("--channels", type=number, nargs="+", required=True, metavar="N", help="stored at once; several give a table")
    add("--messages", type=number, metavar="N", help="stored in each channel, on average (CHAT_BACKLOG)")
    add("--clients", type=number, default=2, metavar="N", help="connected to each channel, on average (2)")
    add("--rate", type=number, metavar="N", help="messages a second in all (3 a channel within CHAT_CHANNEL_TIMEOUT)")
    add("--poll", type=number, default=5, metavar="SECONDS", help="between two checks of a client (5)")
    add("--body", type=number, default=100, metavar="BYTES", help="of a message, as JSON (100)")
    add("--name", type=number, default=10, metavar="BYTES", help="of the name of a channel or client (10)")
    add("--engine", choices=ENGINES, default="redis", help="(redis)")
    add("--node-memory", type=number, default=25e9, metavar="BYTES", help="highest maxmemory of a node (25G)")
    add("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args()
    if not all([*options.channels, options.poll]):
        parser.error("--channels and --poll must be above 0")
    as_json, sizings = vars(options).pop("json"), []
    try:
        settings = Settings.from_env()
    except SettingsError as error:
        parser.error(str(error))
    for count in options.channels:
        load = Namespace(**vars(options) | {"channels": count})
        load.messages = settings.backlog if load.messages is None else load.messages
        load.rate = count * 3 / settings.channel_timeout if load.rate is None else load.rate
        sizings.append(size_up(load, settings))
    print("\n".join(map(json.dumps, sizings) if as_json else table(sizings)))


if __name__ == "__main__":
    main()
