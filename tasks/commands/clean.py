"""``celery -A tasks clean``: run a cleanup by hand, through a worker or in this process."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

import click
from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chat import ChatError, InvalidArgumentError, SettingsError
from chat._output import OutputError, counted, drop_output, open_output, say
from chat.store.explain import describe_outage
from tasks import cleaning
from tasks.commands.remote import WorkerError, run_in_worker
from tasks.commands.table import HEAD, Bar, examples, row
from tasks.periodic import chat_redis, run_sweep
from tasks.settings import Settings
from tasks.stats.figures import read_stats

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from tasks.cleaning import Report

__all__ = ["clean"]

DONE, FAILED, BAD_INPUT, INCOMPLETE, SKIPPED = 0, 1, 2, 3, 4
SEVERITY = (DONE, SKIPPED, INCOMPLETE, BAD_INPUT, FAILED)
MUCH = 0.5  # of all channels or messages: more than that is asked about first

SHARED = [
    click.option("--now", is_flag=True, help="In this process: no worker and no broker, works while Redis is full."),
    click.option("--dry-run", is_flag=True, help="The same selection, nothing is changed; with the largest examples."),
    click.option("--shard", "shards", type=int, multiple=True, help="Only this shard; can be given again."),
    click.option("--yes", is_flag=True, help="Do not ask before more than half of all goes."),
    click.option("--json", "as_json", is_flag=True, help="One JSON object a line."),
]


@click.group(epilog="Exit codes: 0 done, 1 failed, 2 bad input, 3 something due is left, 4 already running elsewhere.")
def clean() -> None:
    """Run a cleanup by hand: see what would go, then let it go.

    \b
    celery -A tasks clean all --dry-run
    celery -A tasks clean all
    celery -A tasks clean backlog --backlog 10 --dry-run
    celery -A tasks clean all --now      # Redis is full, or no worker runs
    """  # noqa: D301  \b is click's


def subcommand(name: str, *options: Callable[..., Any]) -> Callable[..., Any]:
    """Return what makes a function a subcommand with the shared options and its own."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in [*reversed(SHARED), *options]:
            function = option(function)
        return clean.command(name)(click.pass_context(function))

    return add


@subcommand("channels", click.option("--channel-timeout", type=float, help="Seconds, 0 for every channel."))
def channels(context: click.Context, **options: Any) -> None:
    """Remove channels nobody sends to."""
    sweep(context, [cleaning.clean_channels], **options)


@subcommand(
    "backlog",
    click.option("--backlog", type=int, help="Messages a channel keeps."),
    click.option("--message-timeout", type=float, help="Seconds, 0 for no age limit."),
)
def backlog(context: click.Context, **options: Any) -> None:
    """Remove messages beyond the backlog, or too old."""
    sweep(context, [cleaning.clean_backlog], **options)


@subcommand("clients", click.option("--client-timeout", type=float, help="Seconds, 0 for every client."))
def clients(context: click.Context, **options: Any) -> None:
    """Forget clients that stopped checking."""
    sweep(context, [cleaning.clean_clients], **options)


@subcommand("all")
def everything(context: click.Context, **options: Any) -> None:
    """Run all three, by the settings."""
    sweep(context, [cleaning.clean_backlog, cleaning.clean_channels, cleaning.clean_clients], **options)


def sweep(
    context: click.Context,
    cleanings: list[Callable[..., Report]],
    *,
    now: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **overrides: Any,
) -> None:
    """Run sweeps one after another, print their reports and exit with what came of them."""
    given = {name: value for name, value in overrides.items() if value not in (None, ())}
    given |= {"dry_run": True} if dry_run else {}
    app: Celery = context.obj.app
    open_output()
    code = DONE
    try:
        look_first(cleanings, given, ask=sys.stdin.isatty() and not (yes or dry_run))
        for number, one in enumerate(cleanings):
            with Bar(one.__name__) as bar:
                if now:
                    report = run_sweep(one, given, time_budget=None, progress=bar)
                else:
                    report = run_in_worker(app, one.__name__, given, bar)
            show(report, as_json=as_json, first=not number)
            code = max(code, code_of(report), key=SEVERITY.index)
    except (InvalidArgumentError, SettingsError) as error:
        code = fail(BAD_INPUT, error)
    except OutOfMemoryError as error:
        code = fail(FAILED, full(error, now=now))
    except (RedisConnectionError, RedisTimeoutError) as error:
        code = fail(FAILED, describe_outage(error, Settings.from_env().redis_url))
    except OperationalError as error:  # kombu's, of the broker
        code = fail(FAILED, describe_outage(error, Settings.from_env().broker_url))
    except (OutputError, WorkerError, ChatError, RedisError) as error:
        code = fail(FAILED, error)
    sys.exit(code)


def look_first(cleanings: list[Callable[..., Report]], overrides: dict[str, Any], *, ask: bool) -> None:
    """Try every argument before anything is removed, and ask about what is much.

    Both by a dry run in this process: without a question to ask, one that ends after its first look.
    """
    looks = []
    for one in cleanings:
        with Bar(f"{one.__name__}?") as bar:
            looks.append(run_sweep(one, overrides | {"dry_run": True}, time_budget=None if ask else 0, progress=bar))
    if not ask:
        return
    client, settings = chat_redis()
    stored = read_stats(client, settings=settings)
    gone_channels, gone_messages = (sum(getattr(look, kind) for look in looks) for kind in ("channels", "messages"))
    if gone_channels > MUCH * stored.channels or gone_messages > MUCH * stored.messages:
        lines = [
            f"{look.sweep} would remove {look.channels:,} of {counted(stored.channels, 'channel')}"
            f" and {look.messages:,} of {counted(stored.messages, 'message')}"
            for look in looks
            if look.channels or look.messages
        ]
        click.confirm("\n".join([*lines, "Go on?"]), abort=True, err=True)


def show(report: Report, *, as_json: bool, first: bool) -> None:
    """Print a report to stdout.

    Raises:
        OutputError: it cannot be written.
    """
    lines = [*([HEAD] if first else []), row(report), *examples(report)]
    lines += [f"  {report.error}"] if report.error else []
    try:
        click.echo(json.dumps(dataclasses.asdict(report)) if as_json else "\n".join(lines))
    except BrokenPipeError:  # `... | head -1`: the sweeps that follow run, too
        drop_output()
    except OSError as error:
        drop_output()
        message = f"{report.sweep} ran, but its report could not be written: {error.strerror}"
        raise OutputError(message) from error


def code_of(report: Report) -> int:
    """Return the exit code of a report."""
    if report.skipped:
        return SKIPPED
    return DONE if report.completed else INCOMPLETE


def full(error: OutOfMemoryError, *, now: bool) -> str:
    """Return what to do about a full Redis; a run in this process has nothing left to try."""
    if now:
        return f"Redis is full and refused the cleaning ({error}): raise maxmemory, or delete other keys"
    return "Redis is full and takes no task: use --now to clean in this process"


def fail(code: int, error: Exception | str) -> int:
    """Say in one line what went wrong."""
    say(f"clean: {' '.join(str(error).split())}")
    return code
