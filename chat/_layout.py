"""The number of shards is part of how the data lies: fixed once, the same for every process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chat._errors import ShardsMismatchError

if TYPE_CHECKING:
    from chat._keys import Keys
    from chat._nodes import Client

__all__ = ["confirm_shards"]


def confirm_shards(client: Client, keys: Keys, *, fix: bool) -> None:
    """Compare the number of shards with the one in Redis.

    Args:
        client: where the data lies.
        keys: the layout this process means to use.
        fix: write the number where there is none yet.

    Raises:
        ShardsMismatchError: Redis has another number.
    """
    stored = client.get(keys.layout)
    if stored is None and fix:
        client.set(keys.layout, keys.shards, nx=True)
        stored = client.get(keys.layout)
    if stored is not None and int(stored) != keys.shards:
        message = (
            f"the data in Redis lies in {int(stored)} shards, this process has {keys.shards}: "
            f"set CHAT_SHARDS={int(stored)}, or another CHAT_PREFIX for new data"
        )
        raise ShardsMismatchError(message)
