"""The operator's commands, ``celery -A tasks clean | health | restore | stats``: their options and their help.

Every ``celery`` command on the machine loads this module. It therefore imports only click; what a command does is
imported when it runs.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import click

__all__ = ["clean_command", "health_command", "restore_command", "stats_command"]

CLEAN_OPTIONS = [
    click.Option(["--now"], is_flag=True, help="In this process: needs no worker or broker, works on a full Redis."),
    click.Option(["--dry-run"], is_flag=True, help="Change nothing; print what would go, with the largest examples."),
    click.Option(["--shard", "shards"], type=int, multiple=True, help="Only this shard; can be repeated."),
    click.Option(
        ["--yes"],
        is_flag=True,
        help="Remove more than half of everything without asking; only a terminal asks.",
    ),
    click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON object a line."),
]


def _epilog(exit_codes: str, *examples: str) -> str:
    return "\n".join(
        [f"Exit codes: {exit_codes}.\n", "\b\nExamples:", *(f"  celery -A tasks {one}" for one in examples)]
    )


@click.group(
    "clean",
    epilog=_epilog(
        "0 done, 1 failed or not confirmed, 2 bad input or setting, 3 something due is left, 4 already running, "
        "130 interrupted with Ctrl-C (a sweep in a worker goes on)",
        "clean all --dry-run",
        "clean all",
        "clean backlog --backlog 10 --dry-run",
        "clean all --now      # Redis is full, or no worker runs",
    ),
)
def clean_command() -> None:
    """pollchat: run a sweep by hand; first see what it would remove, then run it."""


def _clean(sweeps: list[str], **options: Any) -> None:
    from tasks.commands.clean import clean

    clean(click.get_current_context().obj.app, sweeps, **options)


def _add_sweep(name: str, text: str, sweeps: list[str], **options: tuple[type, str]) -> None:
    own = [click.Option([f"--{key.replace('_', '-')}"], type=kind, help=what) for key, (kind, what) in options.items()]
    params: list[click.Parameter] = [*own, *CLEAN_OPTIONS]
    clean_command.add_command(click.Command(name, help=text, params=params, callback=partial(_clean, sweeps)))


_add_sweep(
    "channels",
    "Remove channels that nobody sends to.",
    ["clean_channels"],
    channel_timeout=(float, "Seconds; 0 for every channel."),
)
_add_sweep(
    "backlog",
    "Remove messages beyond the backlog, or too old.",
    ["clean_backlog"],
    backlog=(int, "Messages that a channel keeps."),
    message_timeout=(float, "Seconds; 0 for no age limit."),
)
_add_sweep(
    "clients",
    "Forget clients that stopped checking.",
    ["clean_clients"],
    client_timeout=(float, "Seconds; 0 for every client."),
)
_add_sweep("all", "Run all three with their settings.", ["clean_backlog", "clean_channels", "clean_clients"])


@click.command(
    "stats",
    epilog=_epilog(
        "0 done, 1 failed, 2 bad input or setting, 130 interrupted with Ctrl-C; 0 for --watch, which ends this way",
        "stats",
        "stats --watch",
        "stats --json --shards",
    ),
)
@click.option("--watch", is_flag=True, help="Refresh until Ctrl-C.")
@click.option("--every", type=float, metavar="SECONDS", help="With --watch: pause between two refreshes (2).")
@click.option("--shards", is_flag=True, help="Add a line for each shard.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def stats_command(**options: Any) -> None:
    """pollchat: print whether cleaning keeps up, and what is in the chat."""
    from tasks.commands.stats import stats

    stats(**options)


@click.command(
    "restore",
    epilog=_epilog(
        "0 done, 1 failed, 2 bad input or setting, 3 some messages were not restored, 130 interrupted with Ctrl-C",
        "restore /var/lib/pollchat --dry-run",
        "restore /var/lib/pollchat --channel lobby --since 2026-11-20",
    ),
)
@click.argument("archive")
@click.option("--channel", "channels", multiple=True, metavar="NAME", help="Only this channel; can be repeated.")
@click.option("--since", metavar="YYYY-MM-DD", help="Only messages sent on this day (UTC) or later.")
@click.option("--day", "days", multiple=True, metavar="YYYY-MM-DD", help="Only this day (UTC); can be repeated.")
@click.option("--dry-run", is_flag=True, help="Change nothing; print what would be restored.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each channel.")
def restore_command(**options: Any) -> None:
    """pollchat: restore removed messages from ARCHIVE, the folder that CHAT_ARCHIVE named; it is only read."""
    from tasks.commands.restore import restore

    restore(**options)


@click.command(
    "health",
    epilog=_epilog(
        "0 alive, 1 not alive, 2 bad input or setting, or another app", "health worker", "health worker -n w2@%h --ping"
    ),
)
@click.argument("what", type=click.Choice(["worker", "beat"]))
@click.option("-n", "--hostname", help="The name that worker or beat was started with.")
@click.option("--ping", is_flag=True, help="Also ask it through the broker: for readiness, never for liveness.")
def health_command(**options: Any) -> None:
    """pollchat: tell whether the worker or beat of this host is alive, by the age of its heartbeat file."""
    from tasks.commands.health import health

    health(click.get_current_context().obj.app, **options)
