"""Lua scripts: each is loaded once from the folder ``lua`` beside its caller, and runs as one atomic step."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError, OutOfMemoryError

from chat.store.nodes import RAW, AsyncClient, Client, Command, answer, answer_async, each, each_async, raise_first

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

__all__ = [
    "CHECK",
    "CLIENTS",
    "HISTORY",
    "LEAVE",
    "SEND",
    "Call",
    "Script",
    "together",
]

PACKAGE = __name__.rpartition(".")[0]
Keys = tuple[bytes, ...]
Args = tuple[Any, ...]


class Script:
    """One script.

    redis-py's own ``register_script`` is close, but decodes replies as its client says, and answers a flushed
    script cache with SCRIPT LOAD and a second EVALSHA, between which the cache can be flushed again or, on a
    cluster, the slot can move. EVAL does both in one step, on the node that has the keys.

    Args:
        name: file name in the package's folder ``lua``, without ``.lua``.
        shared: names of files that are put in front of it, after its first line: in the package's folder
            ``lua/shared``, or else in that of ``chat.store``.
        package: the package whose script it is.
    """

    def __init__(self, name: str, *shared: str, package: str = PACKAGE) -> None:
        first, own = _text(package, name).split("\n", 1)
        parts = [_shared(package, part) for part in shared]
        self.source = "\n".join([first, *parts, own])
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: Any, keys: Sequence[bytes], args: Iterable[Any]) -> Any:
        """Run the script in one round trip; in two when the server has not seen it yet."""
        try:
            return client.execute_command("EVALSHA", self.sha, len(keys), *keys, *args, **RAW)
        except NoScriptError:
            return client.execute_command("EVAL", self.source, len(keys), *keys, *args, **RAW)

    async def run_async(self, client: Any, keys: Sequence[bytes], args: Iterable[Any]) -> Any:
        """Do as a call does, through a client of ``redis.asyncio``."""
        try:
            return await client.execute_command("EVALSHA", self.sha, len(keys), *keys, *args, **RAW)
        except NoScriptError:
            return await client.execute_command("EVAL", self.source, len(keys), *keys, *args, **RAW)

    def many(self, client: Client, calls: Sequence[tuple[Keys, Args]]) -> list[Any]:
        """Run the script once for each (keys, args), in one round trip to each node; return the replies in order.

        Raises:
            redis.exceptions.RedisError: the first error; the other calls were carried out all the same.
        """
        return raise_first(self.each(client, calls))

    def each(self, client: Client, calls: Sequence[tuple[Keys, Args]]) -> list[Any]:
        """Do as `many` does; an error stands in the place of its reply."""
        return together(client, [(self, keys, args) for keys, args in calls])

    async def each_async(self, client: AsyncClient, calls: Sequence[tuple[Keys, Args]]) -> list[Any]:
        """Run the script as `each` does, through a client of ``redis.asyncio``."""
        asked = [(self, keys, args) for keys, args in calls]
        replies = await each_async(client, [script.command(keys, args) for script, keys, args in asked])
        await answer_async(unknown(asked, replies), lambda call: call[0].run_async(client, *call[1:]))
        return replies

    def command(self, keys: Keys, args: Args) -> Command:
        """Return the call as one command of several."""
        return Command(keys[0], ("EVALSHA", self.sha, len(keys), *keys, *args))


class CheckScript(Script):
    """``check.lua``; and ``check_known.lua`` for what a full Redis refuses, in one more round trip."""

    def __init__(self) -> None:
        super().__init__("check", "time", "ids", "reading")
        self._known = Script("check_known", "time", "ids", "reading")

    def __call__(self, client: Any, keys: Sequence[bytes], args: Iterable[Any]) -> Any:
        """Check; while Redis is full, only where the client is known."""
        try:
            return super().__call__(client, keys, args)
        except OutOfMemoryError:
            return self._known(client, keys, args)

    async def run_async(self, client: Any, keys: Sequence[bytes], args: Iterable[Any]) -> Any:
        """Do as a call does, through a client of ``redis.asyncio``."""
        try:
            return await super().run_async(client, keys, args)
        except OutOfMemoryError:
            return await self._known.run_async(client, keys, args)

    def each(self, client: Client, calls: Sequence[tuple[Keys, Args]]) -> list[Any]:
        """Do as a call does for each (keys, args); an error stands in the place of its reply."""
        replies = super().each(client, calls)
        if refused := _refused(replies):
            again = self._known.each(client, [calls[index] for index in refused])
            replies = _replaced(replies, refused, again)
        return replies

    async def each_async(self, client: AsyncClient, calls: Sequence[tuple[Keys, Args]]) -> list[Any]:
        """Do as `each` does, through a client of ``redis.asyncio``."""
        replies = await super().each_async(client, calls)
        if refused := _refused(replies):
            again = await self._known.each_async(client, [calls[index] for index in refused])
            replies = _replaced(replies, refused, again)
        return replies


def _text(package: str, name: str) -> str:
    return files(package).joinpath("lua", f"{name}.lua").read_text("utf-8")


def _shared(package: str, name: str) -> str:
    own = files(package).joinpath("lua", "shared", f"{name}.lua")
    return own.read_text("utf-8") if own.is_file() else _text(PACKAGE, f"shared/{name}")


def _refused(replies: list[Any]) -> list[int]:
    return [index for index, reply in enumerate(replies) if isinstance(reply, OutOfMemoryError)]


def _replaced(replies: list[Any], indexes: list[int], others: list[Any]) -> list[Any]:
    by_index = dict(zip(indexes, others, strict=True))
    return [by_index.get(index, reply) for index, reply in enumerate(replies)]


Call = tuple[Script, Keys, Args]


def together(client: Client, calls: Sequence[Call]) -> list[Any]:
    """Run some scripts in one round trip to each node; return the replies in order, an error in its reply's place."""
    replies = each(client, [script.command(keys, args) for script, keys, args in calls])
    answer(unknown(calls, replies), lambda call: call[0](client, *call[1:]))
    return replies


def unknown(calls: Sequence[Call], replies: list[Any]) -> Generator[Call, Any, None]:
    """Yield the first call whose script the server did not know, and all later ones, to keep their order.

    The reply that is sent back goes into the reply's place. Every script is safe to repeat.
    """
    first = next((index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)), len(calls))
    for index in range(first, len(calls)):
        replies[index] = yield calls[index]


SEND = Script("send", "time", "ids")
CHECK = CheckScript()
HISTORY = Script("history")
CLIENTS = Script("clients")
LEAVE = Script("leave", "time", "ids")
