"""Lua scripts: each is loaded once from the folder ``lua`` beside its caller, and runs as one atomic step."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from chat._errors import ChatFullError
from chat.store.nodes import (
    RAW,
    AsyncClient,
    Client,
    Command,
    checked,
    drive,
    drive_async,
    run,
    run_all,
    run_all_async,
    run_async,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

__all__ = [
    "CHECK",
    "CLIENTS",
    "HISTORY",
    "LEAVE",
    "SEND",
    "Call",
    "Script",
    "call_all",
    "call_all_async",
    "out_of_memory",
]

PACKAGE = __name__.rpartition(".")[0]

Part = str | tuple["Part", ...]


class Script:
    """One script.

    The header of each file names, after ``Needs``, the files in front of it that it builds on.

    A script whose first line has ``flags=no-writes`` is called by EVALSHA_RO, so a user without the right to write may
    run it.

    redis-py's own ``register_script`` is close, but decodes replies as its client says, and answers a flushed
    script cache with SCRIPT LOAD and a second EVALSHA, between which the cache can be flushed again or, on a
    cluster, the slot can move. EVAL does both in one step, on the node that has the keys.

    Args:
        name: file name in the package's folder ``lua``, without ``.lua``.
        shared: names of files that are put in front of it, after its first line: in the package's folder
            ``lua/shared``, or else in that of ``chat.store``. A tuple is a function named after its last part, which
            is the body; the parts before it stand inside. Lua makes each function that stands outside anew in every
            call (0.1 us), those inside only when a rare step is taken.
        package: the package whose script it is.
        fallback: whether a reply is a refusal, and the script to call with the same keys and arguments then.
    """

    def __init__(
        self,
        name: str,
        *shared: Part,
        package: str = PACKAGE,
        fallback: tuple[Callable[[Any], bool], Script] | None = None,
    ) -> None:
        first, own = _text(package, name).split("\n", 1)
        self.source = "\n".join([first, *(_shared_text(package, part) for part in shared), own])
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        self._writes = "no-writes" not in first
        suffix = "" if self._writes else "_RO"
        self._by_sha, self._by_source = f"EVALSHA{suffix}", f"EVAL{suffix}"
        self._fallback = fallback

    def __call__(self, client: Client, keys: Sequence[bytes], args: Iterable[Any]) -> Any:
        """Run the script in one round trip; in two when the server has not seen it yet."""
        try:
            if self._writes:  # as `run` does, in 2 us less: a twentieth of a send's time in the client
                execute: Any = client.execute_command
                return execute(self._by_sha, self.sha, len(keys), *keys, *args, **RAW)
            return run(client, self.command(keys, args))
        except ResponseError as error:
            reply = drive(self.steps(error, keys, args), lambda command: run(client, command))
        return checked(reply)

    async def run_async(self, client: AsyncClient, keys: Sequence[bytes], args: Iterable[Any]) -> Any:
        """Run the script as a call does, through a client of ``redis.asyncio``."""
        try:
            if self._writes:
                return await client.execute_command(self._by_sha, self.sha, len(keys), *keys, *args, **RAW)
            return await run_async(client, self.command(keys, args))
        except ResponseError as error:
            reply = await drive_async(self.steps(error, keys, args), lambda command: run_async(client, command))
        return checked(reply)

    def command(self, keys: Sequence[bytes], args: Iterable[Any]) -> Command:
        """Return the first command of a call."""
        return Command(keys[0], (self._by_sha, self.sha, len(keys), *keys, *args))

    def fallback_of(self, reply: Any) -> Script | None:
        """Return the script to call after a reply, if there is one."""
        refused, script = self._fallback or (None, None)
        return script if refused and refused(reply) else None

    def steps(self, reply: Any, keys: Sequence[bytes], args: Iterable[Any]) -> Generator[Command, Any, Any]:
        """Yield the commands that follow the first reply of a call; each reply, or an error, is sent back."""
        if isinstance(reply, NoScriptError):
            reply = yield Command(keys[0], (self._by_source, self.source, len(keys), *keys, *args))
        if script := self.fallback_of(reply):
            reply = yield script.command(keys, args)
            reply = yield from script.steps(reply, keys, args)
        return reply


class Call(NamedTuple):
    """A script with the keys and arguments of one call."""

    script: Script
    keys: Sequence[bytes]
    args: Iterable[Any]


def call_all(client: Client, calls: Sequence[Call]) -> list[Any]:
    """Run calls in one round trip to each node; return the replies in order, an error in its reply's place."""
    replies = run_all(client, [script.command(keys, args) for script, keys, args in calls])
    drive(_unknown(calls, replies), lambda call: call[0](client, *call[1:]))
    if again := _refused(calls, replies):
        _replace(replies, again, call_all(client, list(again.values())))
    return replies


async def call_all_async(client: AsyncClient, calls: Sequence[Call]) -> list[Any]:
    """Run calls as `call_all` does, through a client of ``redis.asyncio``."""
    replies = await run_all_async(client, [script.command(keys, args) for script, keys, args in calls])
    await drive_async(_unknown(calls, replies), lambda call: call[0].run_async(client, *call[1:]))
    if again := _refused(calls, replies):
        _replace(replies, again, await call_all_async(client, list(again.values())))
    return replies


def _unknown(calls: Sequence[Call], replies: list[Any]) -> Generator[Call, Any, None]:
    """Yield the first call whose script the server did not know, and all later ones, to keep their order.

    The reply that is sent back goes into the reply's place. Every script is safe to repeat.
    """
    first = next((index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)), len(calls))
    for index in range(first, len(calls)):
        replies[index] = yield calls[index]


def _refused(calls: Sequence[Call], replies: list[Any]) -> dict[int, Call]:
    """Return the calls to make in place of those that were refused, by index."""
    return {
        index: Call(script, keys, args)
        for index, ((refused, keys, args), reply) in enumerate(zip(calls, replies, strict=True))
        if (script := refused.fallback_of(reply))
    }


def _replace(replies: list[Any], indexes: Iterable[int], others: list[Any]) -> None:
    for index, reply in zip(indexes, others, strict=True):
        replies[index] = reply


def _text(package: str, name: str) -> str:
    return files(package).joinpath("lua", f"{name}.lua").read_text("utf-8")


def _shared_text(package: str, part: Part) -> str:
    if isinstance(part, tuple):
        return "\n".join([f"local function {part[-1]}(...)", *(_shared_text(package, inner) for inner in part), "end"])
    own = files(package).joinpath("lua", "shared", f"{part}.lua")
    return own.read_text("utf-8") if own.is_file() else _text(PACKAGE, f"shared/{part}")


def out_of_memory() -> ChatFullError:
    """Return the error of a call that stores when Redis is out of memory."""
    return ChatFullError("Redis is out of memory, this attempt stored nothing: clean, raise maxmemory, or keep less")


def _is_full(reply: Any) -> bool:
    return isinstance(reply, OutOfMemoryError)


def _has_lost_ids(reply: Any) -> bool:
    return isinstance(reply, ResponseError) and str(reply).startswith("LOST ")


_BEGIN = ("ids", "begin")
_NEWEST = ("room", "newest")
_MENDING = ((_BEGIN, "unkept", "mend_ids"), "mend_index")
_READING = ("time", "request", *_MENDING, "room", "entries", "position", "reading", "channels")

SEND = Script("send", "time", _BEGIN, "message", "tokens", "windows")
CHECK = Script("check", *_READING, fallback=(_is_full, Script("check_known", *_READING)))
HISTORY = Script("history", _NEWEST, fallback=(_has_lost_ids, Script("history_lost", "time", _BEGIN, _NEWEST)))
CLIENTS = Script("clients")
LEAVE = Script("leave", "time", "ids", "numbers", "last_client")
