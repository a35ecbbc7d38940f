"""The ``chat`` command: send, check, watch and count from a shell. Also ``python -m chat``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from typing import TYPE_CHECKING

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chat._chat import Chat
from chat._errors import ChatError, InvalidArgumentError, SettingsError
from chat._output import OutputError, counted, drop_output, open_output, say
from chat._sizing_command import add_sizing
from chat.settings import unknown_names
from chat.store.arguments import MOST, at_least
from chat.store.explain import describe_outage
from tasks.commands.restore import add_restore
from tasks.commands.screen import printable
from tasks.commands.stats import pause_of, stats_command
from tasks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chat._values import Check, Message

OK, FAILED, BAD_INPUT, UNREACHABLE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 4, 130
UNREACHABLE_ERRORS = (RedisConnectionError, RedisTimeoutError)

EXAMPLES = """\
examples:
  chat send lobby "hi"
  chat send lobby -- "-_-"    # the message begins with a dash
  chat check bob lobby
  chat check bob lobby --limit 10 --json
  chat watch bob lobby
  chat stats --watch
  chat restore /var/lib/pollchat --channel lobby --dry-run
  chat sizing --channels 1M --messages 20 --clients 2

exit codes: 0 done, 1 the output cannot be written, 2 bad input, setting or file, 3 Redis unreachable,
4 refused (Redis is full, say), 130 interrupted by Ctrl-C before its end (0 for a watch, which has none)
Settings come from the environment or .env, REDIS_URL first of all."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    open_output()
    options = _parser().parse_args(argv)
    url = ""
    try:
        settings = Settings.from_env()
        for line in unknown_names():
            say(f"chat: {line}")
        url = settings.redis_url
        options.run(options, settings)
        sys.stdout.flush()
    except BrokenPipeError:  # `chat check ... | head`
        drop_output()
    except KeyboardInterrupt:
        say("")
        return OK if options.watch else INTERRUPTED
    except (ChatError, RedisError, OutputError, OSError) as error:
        code, line = _failure(error, url)
        say(f"chat: {line}")
        return code
    return OK


def _failure(error: Exception, url: str) -> tuple[int, str]:
    """Return the exit code of an error, and what to say about it."""
    if isinstance(error, SettingsError | InvalidArgumentError):
        return BAD_INPUT, str(error)
    if isinstance(error, UNREACHABLE_ERRORS):
        return UNREACHABLE, describe_outage(error, url)
    if isinstance(error, ChatError | RedisError):
        return REFUSED, str(error)
    if isinstance(error, OSError) and (error.filename or error.errno is None):  # a file that cannot be read
        return BAD_INPUT, str(error)
    drop_output()
    return FAILED, f"the output cannot be written: {error.strerror}" if isinstance(error, OSError) else str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chat", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(watch=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    send = commands.add_parser("send", help="send a message and print its id")
    send.add_argument("channel")
    send.add_argument("message", help='one that begins with a dash: chat send lobby -- "-_-"')
    send.set_defaults(run=_send)

    check = commands.add_parser("check", help="print what a client has not read yet, and count it as read")
    check.add_argument("client")
    check.add_argument("channel")
    check.add_argument("--limit", type=int, metavar="N", help="messages at most (all)")
    check.add_argument("--history", type=int, default=10, metavar="N", help="latest messages a new client gets (10)")
    check.add_argument("--json", action="store_true", help="one JSON object")
    check.set_defaults(run=_check)

    watch = commands.add_parser("watch", help="check again and again until Ctrl-C")
    watch.add_argument("client")
    watch.add_argument("channel")
    watch.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="between two checks (1)")
    watch.add_argument("--history", type=int, default=10, metavar="N", help="latest messages a new client gets (10)")
    watch.set_defaults(run=_watch, watch=True)

    stats = commands.add_parser("stats", help="print whether cleaning keeps up, and what is in the chat")
    stats.add_argument("--watch", action="store_true", help="a live screen until Ctrl-C")
    stats.add_argument("--every", type=float, default=2.0, metavar="SECONDS", help="between two screens (2)")
    stats.add_argument("--shards", action="store_true", help="a line for each shard")
    stats.add_argument("--json", action="store_true", help="one JSON object")
    stats.set_defaults(run=stats_command)

    sizing = commands.add_parser(
        "sizing",
        help="print how much Redis and how many workers a load takes",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_sizing(sizing)
    add_restore(commands.add_parser("restore", help="read an archive of removed messages back"))
    return parser


def _send(options: argparse.Namespace, settings: Settings) -> None:
    sent = _chat(settings).send_message(options.channel, options.message)
    try:
        print(sent.id, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        message = f"stored as {sent.id}, but its id could not be written: {error.strerror}"
        raise OutputError(message) from error


def _check(options: argparse.Namespace, settings: Settings) -> None:
    limit = options.limit
    if limit is not None:
        limit = at_least(1, "--limit", limit, "; leave it out for all", most=MOST)
    check = _chat(settings).check_messages(options.client, options.channel, limit=limit, history=options.history)
    if options.json:
        print(json.dumps(dataclasses.asdict(check), default=lambda moment: moment.isoformat()))
    else:
        _print_check(check, options)
        if not check:
            say("nothing new")


def _watch(options: argparse.Namespace, settings: Settings) -> None:
    pause_of(options)
    chat = _chat(settings)
    check = chat.check_messages(options.client, options.channel, history=options.history)
    say(f"watching {printable(options.channel)} as {printable(options.client)}, Ctrl-C stops")
    while True:
        _print_check(check, options)
        check = _check_again(chat, options, settings, check.cursor)


def _check_again(chat: Chat, options: argparse.Namespace, settings: Settings, cursor: str) -> Check:
    """Return the next check that Redis answers; say once that it does not, and once that it does again."""
    is_away = False
    while True:
        time.sleep(options.every)
        try:  # with the cursor a client that was forgotten between two checks goes on from there
            check = chat.check_messages(options.client, options.channel, history=options.history, after=cursor)
        except UNREACHABLE_ERRORS as error:
            if not is_away:
                say(f"chat: {describe_outage(error, settings.redis_url)}; trying again until Redis answers")
            is_away = True
            continue
        if is_away:
            say("Redis answers again")
        return check


def _chat(settings: Settings) -> Chat:
    return Chat.from_url(settings.redis_url, settings=settings)


def _print_check(check: Check, options: argparse.Namespace) -> None:
    """Print messages to stdout, and what is to know about them to stderr."""
    if check.new:
        say(f"{printable(options.client)} is new in {printable(options.channel)}")
    if check.missed:
        say(f"{counted(check.missed, 'message')} {'was' if check.missed == 1 else 'were'} cleaned away unread")
    for message in check:
        print(_line(message), flush=True)
    if check.more:
        say("more are waiting")


def _line(message: Message) -> str:
    return f"{message.id}  {message.sent_at.astimezone():%H:%M:%S}  {printable(message.body)}"


if __name__ == "__main__":
    sys.exit(main())
