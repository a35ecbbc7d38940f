"""``chat sizing``: what a chat of some size takes, as a screen for people, or as JSON for scripts. Asks no Redis."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from chat._errors import InvalidArgumentError
from chat._output import noun
from chat.sizing import BESIDE, ENGINES, NODE_MEMORY, SPARE, Load, Sizing, size_up
from tasks.commands.screen import size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from tasks.settings import Settings

__all__ = ["add_sizing"]

FACTORS = {"k": 1e3, "M": 1e6, "G": 1e9}
MESSAGES_A_LIFE = 3  # without --rate: so many sends to a channel within its timeout keep it alive

EXAMPLES = """\
examples:
  chat sizing --channels 50k --clients 3 --rate 400
  chat sizing --channels 1M --messages 20 --clients 2 --poll 30 --body 300
  chat sizing --channels 10k 1M 100M --messages 20 --clients 2 --poll 30

numbers may end in k, M or G. Timeouts, intervals and windows are those of the settings."""


def add_sizing(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``chat sizing`` its options."""
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("--channels", nargs="+", required=True, metavar="N", help="stored at once; several give a table")
    add("--messages", metavar="N", help="stored in each channel, on average (CHAT_BACKLOG)")
    add("--clients", default="2", metavar="N", help="connected to each channel, on average (2)")
    add("--rate", metavar="N", help="messages a second in all channels (3 to each within CHAT_CHANNEL_TIMEOUT)")
    add("--poll", default="5", metavar="SECONDS", help="between two checks of a client (5)")
    add("--body", default="100", metavar="BYTES", help="of a message, as JSON (100)")
    add("--name", default="10", metavar="BYTES", help="of a channel's name, and of a client's (10)")
    add("--engine", default="redis", metavar="NAME", help=f"{' or '.join(ENGINES)} (redis)")
    add("--node-memory", default="25G", metavar="BYTES", help=f"maxmemory of a node at most ({size(NODE_MEMORY)})")
    add("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=sizing_command)


def sizing_command(options: argparse.Namespace, settings: Settings) -> None:
    """Print what each number of channels takes."""
    loads = [_load(options, settings, _number("--channels", given)) for given in options.channels]
    sizings = [size_up(load, settings) for load in loads]
    pairs = list(zip(loads, sizings, strict=True))
    if options.json:
        lines = [json.dumps({"load": dataclasses.asdict(load)} | dataclasses.asdict(found)) for load, found in pairs]
    elif len(pairs) == 1:
        lines = _screen(*pairs[0])
    else:
        lines = _table(pairs)
    print("\n".join(lines))  # noqa: T201  a command prints


def _load(options: argparse.Namespace, settings: Settings, channels: float) -> Load:
    names = ("clients", "poll", "body", "name", "node_memory")
    given: dict[str, Any] = {name: _number(f"--{name}".replace("_", "-"), getattr(options, name)) for name in names}
    life = settings.channel_timeout / MESSAGES_A_LIFE
    return Load(
        channels=channels,
        messages=settings.backlog if options.messages is None else _number("--messages", options.messages),
        rate=channels / life if options.rate is None else _number("--rate", options.rate),
        engine=options.engine,
        **given,
    )


def _number(option: str, given: str) -> float:
    """Return a number such as ``250``, ``1.5k`` or ``100M``."""
    factor = FACTORS.get(given[-1:], 1)
    try:
        return float(given.rstrip("kMG") if factor > 1 else given) * factor
    except ValueError:
        message = f"{option} is {given!r}, must be a number, such as 250, 10k or 1.5M"
        raise InvalidArgumentError(message) from None


def _screen(load: Load, found: Sizing) -> list[str]:
    kinds = ("messages", "clients", "indexes", "tokens")
    nodes = found.nodes
    each = (
        f"each {load.messages:,g} {noun(load.messages, 'message')} and {load.clients:,g} {noun(load.clients, 'client')}"
    )
    return [
        f"load     {load.channels:,.0f} {noun(load.channels, 'channel')}, {each}",
        f"         {load.body:,g} {noun(load.body, 'byte')} a message, each client checks every {load.poll:g} s",
        f"         {load.rate:,.0f} sends a second, {found.checks:,.0f} checks, {found.reads:,.0f} messages read",
        "",
        f"memory   {size(found.memory)} on {load.engine}",
        f"         {', '.join(f'{size(getattr(found, kind))} {kind}' for kind in kinds)}",
        f"         set maxmemory to {size(found.maxmemory)} in all: {100 * (SPARE - 1):.0f} % to grow",
        f"         machines of {size(found.machine_memory)} in all: {BESIDE:g} x that, to fork and to replicate",
        f"cpu      {sum(found.cores.values()):,.2f} cores of Redis",
        f"         {', '.join(f'{cores:,.2f} {kind}' for kind, cores in found.cores.items())}",
        f"nodes    {nodes:,}: {found.nodes_by_memory:,} by memory, {found.nodes_by_cpu:,} by CPU (half a core each)",
        f"         maxmemory {size(found.maxmemory / nodes)} each, replicas not counted",
        f"network  {size(found.bytes_in)}/s in, {size(found.bytes_out)}/s out at each node",
        f"workers  {found.workers:,}, each busy half of its time at most",
        "",
        f"{'sweep':15} {'interval':>8} {'due a run':>12} {'a run takes':>12}",
        *(
            f"{name:15} {f'{sweep.every:g} s':>8} {sweep.due * sweep.every:>12,.0f} {f'{sweep.seconds:,.2f} s':>12}"
            for name, sweep in found.sweeps.items()
        ),
        "",
        f"CHAT_SHARDS={found.shards}  fixed with the first use: set it for what is to come",
        f"CHAT_CLEAN_PARTS={found.parts}",
        *(f"CHAT_{name.upper()}_EVERY={sweep.every:g}" for name, sweep in found.sweeps.items()),
        *(["", "beyond reason"] if found.warnings else []),
        *(f"  {line}" for line in found.warnings),
    ]


def _table(pairs: list[tuple[Load, Sizing]]) -> list[str]:
    rows: dict[str, Callable[[Load, Sizing], str]] = {
        "channels": lambda load, _: f"{load.channels:,.0f}",
        "sends a second": lambda load, _: f"{load.rate:,.0f}",
        "checks a second": lambda _, found: f"{found.checks:,.0f}",
        "memory": lambda _, found: size(found.memory),
        "maxmemory, in all": lambda _, found: size(found.maxmemory),
        "Redis cores": lambda _, found: f"{sum(found.cores.values()):,.2f}",
        "nodes by memory": lambda _, found: f"{found.nodes_by_memory:,}",
        "nodes by CPU": lambda _, found: f"{found.nodes_by_cpu:,}",
        "network of a node": lambda _, found: f"{size(max(found.bytes_in, found.bytes_out))}/s",
        "workers": lambda _, found: f"{found.workers:,}",
        "intervals": lambda _, found: "/".join(f"{sweep.every:g}" for sweep in found.sweeps.values()) + " s",
        "longest task": lambda _, found: f"{max(sweep.seconds for sweep in found.sweeps.values()):.2f} s",
        "CHAT_SHARDS": lambda _, found: f"{found.shards}",
        "CHAT_CLEAN_PARTS": lambda _, found: f"{found.parts}",
    }
    lines = [f"{name:18}" + "".join(f"{show(*pair):>15}" for pair in pairs) for name, show in rows.items()]
    notes = [f"{load.channels:,.0f} channels: {line}" for load, found in pairs for line in found.warnings]
    return [*lines, *([""] if notes else []), *notes]
