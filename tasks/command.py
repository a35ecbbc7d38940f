"""``celery -A tasks clean``: run a cleanup by hand, in this process. It needs no broker and no worker."""

from __future__ import annotations

import dataclasses
import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from redis.exceptions import RedisError

from chat import ChatError, InvalidArgumentError, SettingsError, cleaning
from tasks.cleaning import run

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["clean"]

DONE, FAILED, BAD_INPUT, INCOMPLETE, SKIPPED = 0, 1, 2, 3, 4
SEVERITY = (DONE, SKIPPED, INCOMPLETE, BAD_INPUT, FAILED)

SHARED = [
    click.option(
        "--now", is_flag=True, required=True, expose_value=False, help="In this process: the one way there is yet."
    ),
    click.option("--dry-run", is_flag=True, default=None, help="The same selection, nothing is changed."),
    click.option("--json", "as_json", is_flag=True, help="One JSON object a line."),
]


@click.group(epilog="Exit codes: 0 done, 1 failed, 2 bad input, 3 something due is left, 4 already running elsewhere.")
def clean() -> None:
    """Run a cleanup by hand, also while Redis is full or no worker runs.

    \b
    celery -A tasks clean all --now
    celery -A tasks clean backlog --now --backlog 10 --dry-run
    """  # noqa: D301  \b is click's


def subcommand(name: str, *options: Callable[..., Any]) -> Callable[..., Any]:
    """Return what makes a function a subcommand with the shared options and its own."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in [*SHARED, *options]:
            function = option(function)
        return clean.command(name)(function)

    return add


@subcommand("channels", click.option("--channel-timeout", type=float, help="Seconds, 0 for every channel."))
def channels(**options: Any) -> None:
    """Remove channels nobody sends to."""
    sweep([cleaning.clean_channels], **options)


@subcommand(
    "backlog",
    click.option("--backlog", type=int, help="Messages a channel keeps."),
    click.option("--message-timeout", type=float, help="Seconds, 0 for no age limit."),
)
def backlog(**options: Any) -> None:
    """Remove messages beyond the backlog, or too old."""
    sweep([cleaning.clean_backlog], **options)


@subcommand("clients", click.option("--client-timeout", type=float, help="Seconds, 0 for every client."))
def clients(**options: Any) -> None:
    """Forget clients that stopped checking."""
    sweep([cleaning.clean_clients], **options)


@subcommand("all")
def everything(**options: Any) -> None:
    """Run all three, by the settings."""
    sweep([cleaning.clean_backlog, cleaning.clean_channels, cleaning.clean_clients], **options)


def sweep(cleanings: list[Callable[..., cleaning.Report]], *, as_json: bool, **overrides: Any) -> None:
    """Run sweeps one after another, print their reports and exit with what came of them."""
    given = {name: value for name, value in overrides.items() if value is not None}
    code = DONE
    for one in cleanings:
        code = max(code, report_code(partial(run, one, given, time_budget=None), as_json=as_json), key=SEVERITY.index)
        if code in (FAILED, BAD_INPUT):
            break  # the next one would fail in the same way
    sys.exit(code)


def report_code(work: Callable[[], cleaning.Report], *, as_json: bool) -> int:
    """Run one sweep, print its report and return its exit code."""
    try:
        report = work()
    except (InvalidArgumentError, SettingsError) as error:
        click.echo(f"clean: {error}", err=True)
        return BAD_INPUT
    except (ChatError, RedisError) as error:
        click.echo(f"clean: {error}", err=True)
        return FAILED
    click.echo(json.dumps(dataclasses.asdict(report)) if as_json else report)
    if report.completed:
        return DONE
    return INCOMPLETE if report.due else SKIPPED
