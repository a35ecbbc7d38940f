"""The subscriptions of a chat, one for each server, and the server that has a name."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import SlotNotCoveredError

from chat._errors import ChatClosedError, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Subscriptions", "node_of", "pool_of"]

T = TypeVar("T")


class Subscriptions(Generic[T]):
    """The subscriptions of one chat, one for each server. Thread-safe.

    Args:
        make: called with a pool of connections and ``in_cluster=``.
    """

    def __init__(self, make: Callable[..., T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._closed = False
        self._subscriptions: dict[tuple[int, str], T] = {}

    def _at(self, node: str, pool: Any) -> T:
        """Return the subscription on a node of a cluster, or with an empty name on the only server.

        Raises:
            ChatClosedError: there are no more subscriptions.
        """
        of_process = (os.getpid(), node)  # a fork copies no threads
        with self._lock:
            if self._closed:
                raise ChatClosedError
            if of_process not in self._subscriptions:
                self._subscriptions[of_process] = self._make(pool, in_cluster=bool(node))
            return self._subscriptions[of_process]

    def _end(self) -> list[T]:
        """Return the subscriptions of this process, to close them; no other is made."""
        with self._lock:
            self._closed = True
            return [subscription for of, subscription in self._subscriptions.items() if of[0] == os.getpid()]


def node_of(cluster: Any, name: bytes) -> Any:
    """Return the node of a cluster's client that has a name.

    Raises:
        redis.exceptions.ConnectionError: no node is known to have it.
    """
    try:
        node = cluster.get_node_from_key(name)
    except SlotNotCoveredError as error:
        raise RedisConnectionError(str(error)) from error
    if node is None:
        message = "no server of the cluster is known to have the channel"
        raise RedisConnectionError(message)
    return node


def pool_of(client: Any) -> Any:
    """Return the pool of a client, which has a connection for wake-ups beside one for a call.

    Raises:
        InvalidArgumentError: it has not.
    """
    pool = getattr(client, "connection_pool", None)
    if pool is None:
        message = f"client is a {type(client).__name__} without connection_pool, must be redis-py's own client to wait"
        raise InvalidArgumentError(message)
    if getattr(pool, "max_connections", None) == 1:
        message = "max_connections of the client is 1, must be at least 2 to wait: one connection receives the wake-ups"
        raise InvalidArgumentError(message)
    return pool
