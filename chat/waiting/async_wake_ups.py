"""Wake-ups for asyncio: the twin of ``wake_ups``, with the tasks of one event loop in place of threads."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from redis.asyncio import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from chat.store.nodes import CUT_OFF
from chat.waiting.gate import CLOSE_TIMEOUT, DISCONNECTED
from chat.waiting.registry import QUIET, RECONNECT, Commands, Registry, Ticket
from chat.waiting.servers import Subscriptions, node_of, pool_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chat.store.nodes import AsyncClient

__all__ = ["AsyncWakeUps"]


class AsyncSubscription:
    """One connection to one server, read by a task of its own while somebody waits.

    Args:
        pool: where the connection comes from.
        in_cluster: the server is one of a cluster.
    """

    def __init__(self, pool: Any, *, in_cluster: bool) -> None:
        self._pool = pool
        self._registry = Registry(asyncio.Event, in_cluster=in_cluster)
        self._connection: Any = None
        self._reader: asyncio.Task[None] | None = None
        self._unsent: Commands = []
        self._sender: asyncio.Task[None] | None = None

    @contextmanager
    def ticket(self, name: bytes) -> Iterator[Ticket]:
        """Take a ticket for the time of the block.

        Cancelling one waiter does not cancel the subscription that others use.
        """
        ticket = self._registry.ticket(name)
        if ticket.starts_reader or not self._reader or self._reader.done():  # it may have been cancelled
            self._reader = asyncio.create_task(self._run(), name="chat-wake-ups")
        if ticket.commands and self._connection:
            self._unsent += ticket.commands
            if not self._sender or self._sender.done():
                self._sender = asyncio.create_task(self._send_unsent(), name="chat-subscribe")
        try:
            yield ticket
        finally:
            self._registry.leave(ticket, time.monotonic())

    def stop(self) -> list[asyncio.Task[None]]:
        """Wake all waiters, and return the tasks that end.

        With no names left the reader ends even if redis-py swallows the cancellation.
        """
        self._registry.close()
        tasks = [task for task in (self._sender, self._reader) if task]
        for task in tasks:
            task.cancel()
        return tasks

    async def _run(self) -> None:
        """Connect and read until nobody waits any more."""
        while await self._send_due():
            try:
                await self._read()
            except (ResponseError, *DISCONNECTED) as error:
                if isinstance(error, DISCONNECTED):
                    await asyncio.sleep(RECONNECT)
                self._registry.disconnected(error)
            else:
                return

    async def _read(self) -> None:
        """Read from one connection."""
        connection = await self._pool.get_connection()
        try:
            self._connection = connection
            await self._send(self._registry.connected())
            while await self._send_due():
                reply = await connection.read_response(
                    disable_decoding=True, timeout=QUIET, disconnect_on_error=False, push_request=True
                )
                if reply is not None:
                    self._registry.heard(reply)
                else:
                    await self._send(self._registry.quiet())
        except CUT_OFF as error:
            if connection.is_connected:
                raise
            raise RedisConnectionError from error
        finally:
            if self._connection is connection:  # no other reader has begun meanwhile
                self._connection = None
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)

    async def _send_unsent(self) -> None:
        while self._unsent:
            commands, self._unsent = self._unsent, []
            await self._send(commands)

    async def _send_due(self) -> bool:
        """Send what is due; return whether somebody waits."""
        commands = self._registry.due(time.monotonic())
        await self._send(commands or [])
        return commands is not None

    async def _send(self, commands: Commands) -> None:
        connection = self._connection
        try:
            if commands and connection and connection.is_connected:
                await connection.send_packed_command(b"".join(connection.pack_commands(commands)), check_health=False)
        except DISCONNECTED:
            pass  # the reader notices
        except CUT_OFF:
            if connection.is_connected:
                raise


class AsyncWakeUps(Subscriptions[AsyncSubscription]):
    """Wakes waiting tasks when a message is sent: one connection to each server, shared by all tasks."""

    def __init__(self, client: AsyncClient) -> None:
        super().__init__(AsyncSubscription)
        self._client = client

    async def subscription(self, name: bytes) -> AsyncSubscription:
        """See `WakeUps.subscription`."""
        if not isinstance(self._client, RedisCluster):
            return self._at("", pool_of(self._client))
        await self._client.initialize()  # does nothing when it knows the servers already
        node = node_of(self._client, name)
        return self._at(node.name, _NodePool(node))

    async def close(self) -> None:
        """Wake all waiters, for good, and give the connections back."""
        tasks = [task for subscription in self._end() for task in subscription.stop()]
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT)


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
