"""Listings that Redis answers page by page: who is connected, which channels there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from chat._codec import decode_presence
from chat.store.keys import decode_name
from chat.store.nodes import RAW

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chat._values import Presence

__all__ = ["Pages", "page_of_channels", "page_of_clients", "scan_index"]

PAGE = 100  # names that one call lists
T = TypeVar("T")


class Pages(Generic[T]):
    """The pages of one listing. Redis may name an item on two pages; it is taken once.

    Args:
        decode: returns the next cursor, and the items of a page by name.

    Attributes:
        args: what asks for the next page: its cursor, and how many items a page has, roughly.
        more: whether there is one.
    """

    def __init__(self, decode: Callable[[Any], tuple[Any, Mapping[Any, T]]]) -> None:
        self._decode = decode
        self._taken: set[Any] = set()
        self.args: tuple[Any, int] = (0, PAGE)
        self.more = True

    def take(self, reply: Any) -> list[T]:
        """Return the items of a page that were on no page before."""
        cursor, items = self._decode(reply)
        self.args, self.more = (cursor, PAGE), int(cursor) != 0
        fresh = items.keys() - self._taken
        self._taken |= fresh
        return [items[name] for name in fresh]


def page_of_channels(reply: Any) -> tuple[Any, dict[bytes, str]]:
    """Decode the reply of `scan_index`."""
    cursor, entries = reply
    return cursor, {name: decode_name(name) for name, _ in entries}


def page_of_clients(reply: Any) -> tuple[Any, dict[str, Presence]]:
    """Decode the reply of ``clients.lua``."""
    cursor, *page = reply
    return cursor, {presence.client: presence for presence in decode_presence(page)}


def scan_index(client: Any, index: bytes, args: tuple[Any, int]) -> Any:
    """Ask a client, of either kind, for a page of an index of channels."""
    cursor, count = args
    return client.execute_command("ZSCAN", index, cursor, "COUNT", count, **RAW)
