"""The ``chat`` command: talk in channels from a shell. Also ``python -m chat``."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import click
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chat._chat import Chat
from chat._errors import ChatError
from chat._printing import line_of, print_check, print_lines, write
from chat.screen import DONE, confirm_pause, exit_codes, printable, say
from chat.settings import Settings, unknown_names
from chat.store.arguments import MOST, at_least
from chat.store.explain import describe_outage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chat._values import Check

UNREACHABLE, REFUSED = 3, 4  # exit codes beside those of chat.screen
UNREACHABLE_ERRORS = (RedisConnectionError, RedisTimeoutError)

EPILOG = """
Exit codes: 0 done, 1 the output cannot be written, 2 bad input or setting, 3 Redis cannot be reached, 4 Redis refused
(it is full, for example), 130 interrupted with Ctrl-C; 0 for watch, which ends this way.

Settings are read from the environment and from .env; REDIS_URL says where Redis is.

\b
Examples:
  chat send lobby "hi"
  chat send lobby -- "--hi"    # a message that could be taken for an option
  chat check bob lobby
  chat check bob lobby --limit 10 --json
  chat watch bob lobby
  chat history lobby --limit 5
  chat clients lobby"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0, or exit with the code of what went wrong."""
    words = list(sys.argv[1:] if argv is None else argv)
    help_only = suppress(click.exceptions.Exit)
    with exit_codes("chat", _describe), help_only, chat.make_context("chat", words, obj=words) as context:
        chat.invoke(context)
    return DONE


def _describe(error: Exception) -> tuple[int, str] | None:
    if isinstance(error, (*UNREACHABLE_ERRORS, InvalidResponse)):
        return UNREACHABLE, describe_outage(error, Settings.from_env().redis_url)
    return (REFUSED, str(error)) if isinstance(error, ChatError | RedisError) else None


client = click.argument("client")
channel = click.argument("channel")
history_option = click.option("--history", default=10, metavar="N", help="Messages a new client starts with (10).")


@click.group(epilog=EPILOG, no_args_is_help=False)
def chat() -> None:
    """Send messages to channels, and read what is new since the last check."""


@chat.command(context_settings={"ignore_unknown_options": True})  # a message may begin with a dash
@channel
@click.argument("words", nargs=-1, required=True, metavar="MESSAGE")
@click.pass_obj
def send(given: list[str], channel: str, words: tuple[str, ...]) -> None:
    """Send a message and print its id.

    \b
    A message that begins with two dashes: chat send lobby -- "--hi"
    """  # noqa: D301  \b is click's
    if "--" not in given and (option := next((word for word in (channel, *words) if word.startswith("--")), "")):
        message = f"No such option '{option}'; to send it, put -- before the message"
        raise click.UsageError(message)
    if len(words) > 1:
        message = f'the message is {len(words)} words, must be one: put it in quotes, "{" ".join(words)}"'
        raise click.UsageError(message)
    sent = _open().send_message(channel, words[0])
    write(str(sent.id), f"stored as {sent.id}, but its id could not be written")


@chat.command()
@client
@channel
@click.option("--limit", type=int, metavar="N", help="Messages to read at most (all).")
@history_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(client: str, channel: str, limit: int | None, history: int, *, as_json: bool) -> None:
    """Print what a client has not read yet, and count it as read."""
    if limit is not None:
        limit = at_least(1, "--limit", limit, "; leave it out for all", most=MOST)
    history = at_least(0, "--history", history, most=MOST)
    found = _open().check_messages(client, channel, limit=limit, history=history)
    if as_json:
        print(json.dumps(dataclasses.asdict(found), default=lambda moment: moment.isoformat()))
        return
    print_check(found, client, channel)
    if not found:
        say("nothing new")


@chat.command()
@client
@channel
@click.option("--every", default=1.0, metavar="SECONDS", help="Pause between two checks (1).")
@history_option
def watch(client: str, channel: str, every: float, history: int) -> None:
    """Check again and again until Ctrl-C."""
    confirm_pause(every)
    history = at_least(0, "--history", history, most=MOST)
    with suppress(KeyboardInterrupt):
        room = _open()
        found = room.check_messages(client, channel, history=history)
        say(f"watching {printable(channel)} as {printable(client)}, Ctrl-C stops")
        while True:
            print_check(found, client, channel)
            # The cursor lets a client that was forgotten between two checks go on where it was.
            again = partial(room.check_messages, client, channel, history=history, after=found.cursor)
            found = _outlive_outage(again, every)
    say("")


def _outlive_outage(check: Callable[[], Check], pause: float) -> Check:
    """Repeat a check until Redis answers; say once that it does not, and once that it does again."""
    is_away = False
    while True:
        time.sleep(pause)
        try:
            found = check()
        except UNREACHABLE_ERRORS as error:
            if not is_away:
                say(f"chat: {describe_outage(error, Settings.from_env().redis_url)}; trying again until Redis answers")
            is_away = True
        else:
            if is_away:
                say("Redis answers again")
            return found


@chat.command()
@channel
@click.option("--limit", default=20, metavar="N", help="Messages to print at most (20).")
@click.option("--before", type=int, metavar="ID", help="Only messages with a lower id.")
def history(channel: str, limit: int, before: int | None) -> None:
    """Print the latest messages; no client counts as having read them."""
    limit = at_least(1, "--limit", limit, most=MOST)
    if before is not None:
        before = at_least(1, "--before", before)
    print_lines(map(line_of, _open().read_history(channel, limit=limit, before=before)), "no messages")


@chat.command()
@channel
def clients(channel: str) -> None:
    """Print who is connected, with the time of the last check."""
    shown = (
        f"{found.checked_at.astimezone():%H:%M:%S}  {printable(found.client)}" for found in _open().clients(channel)
    )
    print_lines(shown, "no clients")


@chat.command()
def channels() -> None:
    """Print the names of all channels."""
    print_lines(map(printable, _open().channels()), "no channels")


@chat.command()
@client
@channel
def leave(client: str, channel: str) -> None:
    """Disconnect a client from a channel, and forget what it has read."""
    _open().leave_channel(client, channel)


def _open() -> Chat:
    room = Chat.from_env()
    for line in unknown_names():
        say(f"chat: {line}")
    return room


if __name__ == "__main__":
    sys.exit(main())
