"""The number of shards, fixed by the first call: a process with another number is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chat._errors import ShardsMismatchError

if TYPE_CHECKING:
    from chat.store.keys import Keys
    from chat.store.nodes import AsyncClient, Client

__all__ = ["confirm_shards", "confirm_shards_async"]


def confirm_shards(client: Client, keys: Keys, *, create: bool) -> None:
    """Compare the number of shards with the one in Redis.

    Args:
        client: client of the Redis that holds the data.
        keys: keys of this process, with its number of shards.
        create: store its number of shards where there is none yet.

    Raises:
        ShardsMismatchError: Redis has another number.
    """
    stored = client.get(keys.shards_key)
    if stored is None and create:
        client.set(keys.shards_key, keys.shards, nx=True)
        stored = client.get(keys.shards_key)
    _compare(stored, keys)


async def confirm_shards_async(client: AsyncClient, keys: Keys) -> None:
    """See `confirm_shards`, with ``create=True`` and a client of ``redis.asyncio``."""
    stored = await client.get(keys.shards_key)
    if stored is None:
        await client.set(keys.shards_key, keys.shards, nx=True)
        stored = await client.get(keys.shards_key)
    _compare(stored, keys)


def _compare(stored: Any, keys: Keys) -> None:
    """Compare the number of shards that is stored, None where there is none yet, with that of this process.

    Raises:
        ShardsMismatchError: they differ.
    """
    if stored is not None and int(stored) != keys.shards:
        message = (
            f"the data in Redis is stored in {int(stored)} shards, this process has {keys.shards}: "
            f"set CHAT_SHARDS={int(stored)}, or another CHAT_PREFIX for new data"
        )
        raise ShardsMismatchError(message)
