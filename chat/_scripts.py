"""The Lua scripts: loaded once from ``chat/lua``, each run as one atomic step."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError

from chat._nodes import RAW, AsyncClient, Client, Command, answer, answer_async, each, each_async, raise_first

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

__all__ = [
    "CHECK",
    "CLIENTS",
    "DUE",
    "FORGET_CLIENTS",
    "HISTORY",
    "NOTE_RUN",
    "REMOVE_CHANNELS",
    "RESTORE",
    "SEND",
    "TRIM_BACKLOGS",
    "Call",
    "Script",
    "together",
]

Keys = tuple[bytes, ...]
Args = tuple[Any, ...]


class Script:
    """One script of ``chat/lua``.

    redis-py's own ``register_script`` is close, but decodes replies as its client says, and answers a flushed
    script cache with SCRIPT LOAD and a second EVALSHA, between which the cache can be flushed again or, on a
    cluster, the slot can move. EVAL does both in one step, on the node that has the keys.

    Args:
        name: file name in ``chat/lua``, without ``.lua``.
    """

    def __init__(self, name: str) -> None:
        self.source = files("chat").joinpath("lua", f"{name}.lua").read_text("utf-8")
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


SEND = Script("send")
CHECK = Script("check")
DUE = Script("due")
REMOVE_CHANNELS = Script("remove_channels")
TRIM_BACKLOGS = Script("trim_backlogs")
FORGET_CLIENTS = Script("forget_clients")
HISTORY = Script("history")
CLIENTS = Script("clients")
NOTE_RUN = Script("note_run")
RESTORE = Script("restore")
