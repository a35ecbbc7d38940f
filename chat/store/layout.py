"""The number of shards is part of how the data lies: fixed once, the same for every process."""

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
        client: where the data lies.
        keys: the layout this process means to use.
        create: write the number where there is none yet.

    Raises:
        ShardsMismatchError: Redis has another number.
    """
    stored = client.get(keys.layout)
    if stored is None and create:
        client.set(keys.layout, keys.shards, nx=True)
        stored = client.get(keys.layout)
    _compare(stored, keys)


async def confirm_shards_async(client: AsyncClient, keys: Keys) -> None:
    """Do as `confirm_shards` does to store, through a client of ``redis.asyncio``."""
    stored = await client.get(keys.layout)
    if stored is None:
        await client.set(keys.layout, keys.shards, nx=True)
        stored = await client.get(keys.layout)
    _compare(stored, keys)


def _compare(stored: Any, keys: Keys) -> None:
    """Hold the number of shards that Redis has, None where it has none yet, against a layout.

    Raises:
        ShardsMismatchError: it is another number.
    """
    if stored is not None and int(stored) != keys.shards:
        message = (
            f"the data in Redis lies in {int(stored)} shards, this process has {keys.shards}: "
            f"set CHAT_SHARDS={int(stored)}, or another CHAT_PREFIX for new data"
        )
        raise ShardsMismatchError(message)
