"""Wake-ups for asyncio: as ``threads``, with the tasks of one event loop in place of threads."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from redis.asyncio import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, ResponseError, SlotNotCoveredError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chat._errors import ChatClosedError
from chat.store.nodes import CUT_OFF
from chat.waiting.gate import CLOSING, GONE, pool_to_wait_with
from chat.waiting.registry import QUIET, RECONNECT, Registry, Ticket

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from chat.store.nodes import AsyncClient

__all__ = ["AsyncWakeUps"]


class AsyncWakeUps:
    """Wakes waiting tasks when a message is sent: one connection to each server, shared by all tasks."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._closed = False
        self._subscriptions: dict[str, Subscription] = {}

    async def subscription(self, name: bytes) -> Subscription:
        """Return what hears of a name.

        Raises:
            ChatClosedError: there are no more wake-ups.
            InvalidArgumentError: the client cannot wait.
            redis.exceptions.ConnectionError: no server is known to have the name.
        """
        node, pool = await self._place(name)
        if self._closed:
            raise ChatClosedError
        if node not in self._subscriptions:
            self._subscriptions[node] = Subscription(pool, alone=not node)
        return self._subscriptions[node]

    async def close(self) -> None:
        """Wake all waiters, for good, and give the connections back."""
        self._closed = True
        tasks = [task for subscription in self._subscriptions.values() for task in subscription.stop()]
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSING)

    async def _place(self, name: bytes) -> tuple[str, Any]:
        if not isinstance(self._client, RedisCluster):
            return "", pool_to_wait_with(self._client)
        await self._client.initialize()  # does nothing when it knows the servers already
        try:
            node = self._client.get_node_from_key(name)  # type: ignore[arg-type]  # bytes are keys too
        except SlotNotCoveredError as error:
            raise RedisConnectionError(str(error)) from error
        if node is None:
            message = "no server of the cluster is known to have the channel"
            raise RedisConnectionError(message)
        return node.name, _NodePool(node)


class _NodePool:
    """A node's connections as a pool's."""

    def __init__(self, node: Any) -> None:
        self._node = node

    async def get_connection(self) -> Any:
        connection = self._node.acquire_connection()
        try:
            await connection.connect()
        except BaseException as error:
            self._node.release(connection)
            if isinstance(error, AttributeError):  # closed meanwhile, see CUT_OFF
                raise RedisConnectionError from error
            raise
        return connection

    async def release(self, connection: Any) -> None:
        self._node.release(connection)


class Subscription:
    """One connection to one server, read by a task of its own while somebody waits.

    Args:
        pool: where the connection comes from.
        alone: the server is not one of a cluster; a successor that sentinels name is found by the pool.
    """

    def __init__(self, pool: Any, *, alone: bool) -> None:
        self._pool, self._alone = pool, alone
        self._registry = Registry(asyncio.Event)
        self._closed = False
        self._connection: Any = None
        self._reader: asyncio.Task[None] | None = None
        self._fresh: list[bytes] = []
        self._sender: asyncio.Task[None] | None = None

    @contextmanager
    def ticket(self, name: bytes) -> Iterator[Ticket]:
        """Take a ticket for the time of the block; no cancelled waiter takes the subscribing of its name along."""
        if self._closed:
            raise ChatClosedError
        ticket = self._registry.ticket(name)
        if not self._reader or self._reader.done():
            self._reader = asyncio.create_task(self._run(), name="chat-wake-ups")
        if ticket.fresh and self._connection:
            self._fresh.append(name)
            if not self._sender or self._sender.done():
                self._sender = asyncio.create_task(self._subscribe_fresh(), name="chat-subscribe")
        try:
            yield ticket
        finally:
            ticket.leave(time.monotonic())

    def stop(self) -> list[asyncio.Task[None]]:
        """Wake all waiters, and return the tasks that end; without names, even if redis-py swallows a cancellation."""
        self._closed = True
        self._drop()
        tasks = [task for task in (self._sender, self._reader) if task]
        for task in tasks:
            task.cancel()
        return tasks

    def _drop(self, refused: ResponseError | None = None) -> None:
        """Wake all waiters: to look where their channel is now, or to be told what was refused."""
        self._registry.drop(self._registry.names, refused)

    async def _run(self) -> None:
        while await self._is_wanted():
            try:
                await self._read()
            except MovedError:
                self._drop()
            except ResponseError as error:  # no permission, say
                self._drop(error)
            except GONE:
                await asyncio.sleep(RECONNECT)
                if not self._alone:
                    self._drop()
            else:
                return

    async def _read(self) -> None:
        """Listen on one connection until nobody waits any more."""
        connection = await self._pool.get_connection()
        try:
            self._connection = connection
            await self._send("SSUBSCRIBE", self._registry.names)
            await self._read_from(connection)
        except CUT_OFF as error:
            if connection.is_connected:
                raise
            raise RedisConnectionError from error
        finally:
            if self._connection is connection:  # no other reader has begun meanwhile
                self._connection = None
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)

    async def _read_from(self, connection: Any) -> None:
        asked = False
        while await self._is_wanted():
            reply = await connection.read_response(
                disable_decoding=True, timeout=QUIET, disconnect_on_error=False, push_request=True
            )
            if reply is not None:
                self._registry.heard(reply)
                asked = False
            elif asked:
                raise RedisTimeoutError
            else:
                asked = True
                await self._send("PING")

    async def _subscribe_fresh(self) -> None:
        while self._fresh:
            names, self._fresh = self._fresh, []
            await self._send("SSUBSCRIBE", names)

    async def _send(self, word: str, names: Iterable[bytes] | None = None) -> None:
        commands = [(word,)] if names is None else [(word, name) for name in names]  # of one slot each on a cluster
        connection = self._connection
        try:
            if connection and connection.is_connected:
                await connection.send_packed_command(b"".join(connection.pack_commands(commands)), check_health=False)
        except GONE:
            pass  # the reader notices
        except CUT_OFF:
            if connection.is_connected:
                raise

    async def _is_wanted(self) -> bool:
        """Unsubscribe from names that nobody waits for; return whether any is left, else the task ends."""
        idle = self._registry.idle(time.monotonic())
        wanted = bool(self._registry.names)
        if not wanted:
            self._reader = None
        elif idle:
            await self._send("SUNSUBSCRIBE", idle)
        return wanted
