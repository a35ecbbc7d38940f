"""The ``chat`` command: send, check, watch and count from a shell. Also ``python -m chat``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from io import TextIOWrapper
from typing import TYPE_CHECKING

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chat._chat import Chat
from chat._errors import ChatError, ChatFullError, InvalidArgumentError, SettingsError
from chat._explain import describe_outage
from chat._restore_command import add_restore
from chat._sizing_command import add_sizing
from chat._stats_command import pause_of, stats_command
from chat.screen import printable
from chat.settings import Settings, unknown_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chat._messages import Check, Message

OK, BAD_INPUT, UNREACHABLE, REFUSED = 0, 2, 3, 4

EXAMPLES = """\
examples:
  chat send lobby "hi"
  chat check bob lobby
  chat check bob lobby --limit 10 --json
  chat watch bob lobby
  chat stats --watch
  chat restore /var/lib/pollchat --channel lobby --dry-run
  chat sizing --channels 1M --messages 20 --clients 2

exit codes: 0 done, 2 bad input, setting or file, 3 Redis unreachable, 4 refused (Redis is full, say)
Settings come from the environment or .env, REDIS_URL first of all."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(argv)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may not know every character
    url = ""
    try:
        settings = Settings.from_env()
        for line in unknown_names():
            _say(f"chat: {line}")
        url = settings.redis_url
        options.run(options, settings)
        sys.stdout.flush()
    except (SettingsError, InvalidArgumentError) as error:
        return _fail(BAD_INPUT, str(error))
    except (RedisConnectionError, RedisTimeoutError) as error:
        return _fail(UNREACHABLE, describe_outage(error, url))
    except (ChatFullError, ChatError, RedisError) as error:
        return _fail(REFUSED, str(error))
    except BrokenPipeError:  # `chat check ... | head`
        _drop_output()
    except OSError as error:  # a file that cannot be read, or written
        _drop_output()
        return _fail(BAD_INPUT, str(error))
    except KeyboardInterrupt:
        print(file=sys.stderr)
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chat", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    send = commands.add_parser("send", help="send a message and print its id")
    send.add_argument("channel")
    send.add_argument("message")
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
    watch.set_defaults(run=_watch)

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
    print(_chat(settings).send_message(options.channel, options.message).id)


def _check(options: argparse.Namespace, settings: Settings) -> None:
    check = _chat(settings).check_messages(
        options.client, options.channel, limit=options.limit, history=options.history
    )
    if options.json:
        print(json.dumps(dataclasses.asdict(check), default=lambda moment: moment.isoformat()))
    else:
        _print_check(check, options)
        if not check:
            _say("nothing new")


def _watch(options: argparse.Namespace, settings: Settings) -> None:
    pause = pause_of(options)
    chat = _chat(settings)
    _say(f"watching {options.channel} as {options.client}, Ctrl-C stops")
    cursor = None  # of what was printed: a client that was forgotten between two checks goes on from there
    while True:
        check = chat.check_messages(options.client, options.channel, history=options.history, after=cursor)
        _print_check(check, options)
        cursor = check.cursor
        time.sleep(pause)


def _chat(settings: Settings) -> Chat:
    return Chat.from_url(settings.redis_url, settings=settings)


def _print_check(check: Check, options: argparse.Namespace) -> None:
    """Print messages to stdout, and what is to know about them to stderr."""
    if check.new:
        _say(f"{options.client} is new in {options.channel}")
    if check.missed:
        _say(f"{check.missed} messages were cleaned away unread")
    for message in check:
        print(_line(message), flush=True)
    if check.more:
        _say("more are waiting")


def _line(message: Message) -> str:
    return f"{message.id}  {message.sent_at.astimezone():%H:%M:%S}  {printable(message.body)}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _drop_output() -> None:
    """Drop what cannot be written to stdout: Python would try again at its exit, and say so."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(code: int, line: str) -> int:
    _say(f"chat: {line}")
    return code


if __name__ == "__main__":
    sys.exit(main())
