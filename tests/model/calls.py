"""The product's own Python on the store: it builds every key and argument, and decodes every reply.

Randomness and time come from outside, so what a call does depends on the state alone. A sweep is stepped by running it
from its beginning with the replies that it has had, and then one command further.
"""

from __future__ import annotations

import functools
import os
import secrets
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from redis.exceptions import OutOfMemoryError, ResponseError

from chat.store import scripts as chatting
from chat.store.scripts import Script
from tasks.archive import channel as restoring
from tasks.cleaning import SWEEPS
from tasks.cleaning import scripts as cleaning
from tests.model.lua import Lua
from tests.model.promises import promise
from tests.model.store import ReplyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chat import Message
    from tasks.cleaning import Report
    from tasks.settings import Settings
    from tests.model.store import Store

KEPT = b"kept"  # in place of a reply: the archive has what it was given
MANY = 500  # commands: more than any sweep of a model needs

Mutate = "Callable[[str], str] | None"
lua = functools.cache(Lua)


@contextmanager
def fixed(token: bytes) -> Iterator[None]:
    """Let what is random be made of a token, and let no time pass in the client."""
    real = os.urandom, secrets.token_hex, time.monotonic
    os.urandom = lambda count: token.rjust(count, b"\0")[-count:]  # type: ignore[assignment]
    secrets.token_hex = lambda count: token.hex().rjust(2 * count, "0")[-2 * count :]  # type: ignore[assignment]
    time.monotonic = lambda: 0.0  # type: ignore[assignment]
    try:
        yield
    finally:
        os.urandom, secrets.token_hex, time.monotonic = real


class Client:
    """What redis-py's client is to the product.

    Args:
        store: the server.
        full: whether it is out of memory.
        mutate: what to make of the text of a script before it is loaded.
    """

    def __init__(self, store: Store, *, full: bool = False, mutate: Mutate = None) -> None:
        self._store, self._full, self._mutate = store, full, mutate
        self._commands = 0

    def get(self, key: bytes) -> bytes | None:
        return self._store.values.get(key)

    def execute_command(self, _: str, script: str, count: int, *words: Any, **__: Any) -> Any:
        self._commands += 1
        promise("sweep_ends", self._commands < MANY, "it sent", self._commands, "commands")
        source = SOURCES[script]
        compiled = lua().compile(self._mutate(source) if self._mutate else source)
        if self._full and not compiled.when_full:
            raise OutOfMemoryError
        encoded = tuple(word if isinstance(word, bytes) else str(word).encode() for word in words)
        reply = decoded(lua().run(compiled, self._store, encoded[:count], encoded[count:]))
        if isinstance(reply, Exception):
            raise reply
        return reply

    def pipeline(self, *, transaction: bool) -> Pipeline:
        assert not transaction
        return Pipeline(self)

    def begin_round_trip(self) -> None:
        """Commands from here to the next call are sent together."""


class Pipeline:
    """Commands that are sent together. They are no transaction: those of others come in between."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._commands: list[tuple[Any, ...]] = []

    def execute_command(self, *words: Any, **_: Any) -> None:
        self._commands.append(words)

    def execute(self, *, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        self._client.begin_round_trip()
        return [self._reply(words) for words in self._commands]

    def _reply(self, words: tuple[Any, ...]) -> Any:
        try:
            return self._client.execute_command(*words)
        except ResponseError as error:
            return error


def scripts() -> list[Script]:
    """Return every script of the product."""
    found: dict[str, Script] = {}
    waiting = [value for module in (chatting, cleaning, restoring) for value in vars(module).values()]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Script) and value.sha not in found:
            found[value.sha] = value
            waiting.append(value._fallback and value._fallback[1])
    return list(found.values())


SOURCES = {script.sha: script.source for script in scripts()}


def decoded(reply: Any) -> Any:
    """Return a reply with redis-py's errors."""
    if isinstance(reply, ReplyError):
        code, _, text = str(reply).partition(" ")
        return OutOfMemoryError(text) if code == "OOM" else ResponseError(text if code == "ERR" else str(reply))
    return [decoded(item) for item in reply] if isinstance(reply, list) else reply


@dataclass(frozen=True)
class Sweep:
    """A sweep on its way.

    Attributes:
        name: of the sweep.
        overrides: its options.
        archives: name of the function below that is its archive, or nothing.
        number: tells it from others.
        replies: what it has been told so far.
        sent: how many of the replies it had when it last sent something.
        kept: the channel and messages that its last step handed over, if it was that.
    """

    name: str
    overrides: tuple[tuple[str, Any], ...] = ()
    archives: str = ""
    number: int = 1
    replies: tuple[Any, ...] = ()
    sent: int = 0
    kept: tuple[str, tuple[Message, ...]] | None = None

    @property
    def owner(self) -> bytes:
        """What stands in a lease of this sweep."""
        return b"%016x" % self.number

    @property
    def token(self) -> bytes:
        return bytes([self.number])

    @property
    def lease_key(self) -> bytes:
        return b"chat:{0}:lease:" + self.name.encode()

    def __str__(self) -> str:
        return f"{self.name} {self.number}"


class SuspendedError(BaseException):
    """Raised where a sweep would go further than it is let."""


class SweepClient(Client):
    """The client of a sweep, which repeats what it was told and then goes one step further."""

    def __init__(self, store: Store, sweep: Sweep, **options: Any) -> None:
        super().__init__(store, **options)
        self._told = list(sweep.replies)
        self.place, self.sent, self.replies = 0, 0, list(sweep.replies)
        self.kept: tuple[str, tuple[Message, ...]] | None = None
        self._in_pipeline = False

    def begin_round_trip(self) -> None:
        self.sent = self.place

    def execute_command(self, name: str, script: str, count: int, *words: Any, **options: Any) -> Any:
        if b"{" not in words[0]:
            return None  # the record of the runs, which decides nothing
        return self._next(lambda: super(SweepClient, self).execute_command(name, script, count, *words, **options))

    def keep(self, channel: str, messages: tuple[Message, ...]) -> None:
        def hand_over() -> bytes:
            self.kept = (channel, messages)
            return KEPT

        self.sent = self.place
        self._next(hand_over)

    def _next(self, work: Callable[[], Any]) -> Any:
        if self.place > len(self._told):
            raise SuspendedError
        if self.place == len(self._told):
            try:
                reply = work()
            except ResponseError as error:
                reply = error
            self.replies.append(frozen(reply))
        else:
            reply = thawed(self._told[self.place])
        self.place += 1
        if isinstance(reply, Exception):
            raise reply
        return reply


_stepping: list[SweepClient] = []


def archive(channel: str, messages: tuple[Message, ...]) -> None:
    """Take messages of the sweep that is stepped, or of a whole one."""
    if _stepping:
        _stepping[-1].keep(channel, messages)


def stepped(store: Store, sweep: Sweep, settings: Settings, **options: Any) -> Sweep | Report:
    """Run one command of a sweep, or hand over one channel; return the sweep as it is then, or its report."""
    client = SweepClient(store, sweep, **options)
    settings = archiving(settings, sweep.archives) if sweep.archives else settings
    _stepping.append(client)
    try:
        with fixed(sweep.token):
            return SWEEPS[sweep.name](client, settings=settings, **dict(sweep.overrides))
    except SuspendedError:
        return replace(sweep, replies=tuple(client.replies), sent=client.sent, kept=client.kept)
    finally:
        _stepping.pop()


def broken_archive(channel: str, _: tuple[Message, ...]) -> None:
    """Take nothing."""
    raise OSError(channel)


@functools.cache
def archiving(settings: Settings, function: str) -> Settings:
    return replace(settings, archive=f"{__name__}:{function}")


def frozen(reply: Any) -> Any:
    return tuple(map(frozen, reply)) if isinstance(reply, list) else reply


def thawed(reply: Any) -> Any:
    return list(map(thawed, reply)) if isinstance(reply, tuple) else reply
