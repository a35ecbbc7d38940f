"""Wake-ups for threads: one connection to each server receives them, and sets the events of waiting threads."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from redis.cluster import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from chat.store.nodes import CUT_OFF
from chat.waiting.gate import DISCONNECTED
from chat.waiting.registry import QUIET, RECONNECT, Commands, Registry, Ticket
from chat.waiting.servers import Subscriptions, node_of, pool_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chat.store.nodes import Client

__all__ = ["WakeUps"]


class Subscription:
    """One connection to one server, read by a thread of its own while somebody waits.

    Args:
        pool: where the connection comes from.
        in_cluster: the server is one of a cluster.
    """

    def __init__(self, pool: Any, *, in_cluster: bool) -> None:
        self._pool = pool
        self._registry = Registry(threading.Event, in_cluster=in_cluster)
        self._connection: Any = None
        self._sending = threading.RLock()  # not the registry's lock: a full socket may hold a sender, but no waiter
        self._reader: threading.Thread | None = None

    @contextmanager
    def ticket(self, name: bytes) -> Iterator[Ticket]:
        """Take a ticket for the time of the block."""
        ticket = self._registry.ticket(name)
        try:
            if ticket.starts_reader:
                self._start_reader()
            self._send(ticket.commands)
            yield ticket
        finally:
            self._registry.leave(ticket, time.monotonic())

    def close(self, until: float) -> None:
        """Wake all waiters, and let the reader end: killed at the interpreter's exit, it could hold the pool's lock."""
        self._registry.close()
        self._send([("PING",)])  # the reply wakes the reader
        if self._reader:
            self._reader.join(max(0.0, until - time.monotonic()))

    def _start_reader(self) -> None:
        reader = threading.Thread(target=self._run, name="chat-wake-ups", daemon=True)
        try:
            with self._sending:  # so that a close meanwhile sees the thread
                reader.start()
                self._reader = reader
        except RuntimeError:  # the process may have no more threads
            self._registry.reader_failed()
            raise

    def _run(self) -> None:
        """Connect and read until nobody waits any more."""
        try:
            while self._send_due():
                try:
                    self._read()
                except (ResponseError, *DISCONNECTED) as error:
                    if isinstance(error, DISCONNECTED):
                        time.sleep(RECONNECT)
                    self._registry.disconnected(error)
                else:
                    return
        except BaseException:
            self._registry.reader_failed()
            raise

    def _read(self) -> None:
        """Read from one connection."""
        connection = self._pool.get_connection()
        connection.register_connect_callback(self._subscribe)  # redis-py connects anew by itself
        try:
            with self._sending:
                self._connection = connection
                self._subscribe(connection)
            while self._send_due():
                if connection.can_read(timeout=QUIET):
                    self._registry.heard(connection.read_response(disable_decoding=True, push_request=True))
                else:
                    self._send(self._registry.quiet())
        except CUT_OFF as error:
            if connection.is_connected:
                raise
            raise RedisConnectionError from error
        finally:
            with self._sending:
                if self._connection is connection:  # no other reader has begun meanwhile
                    self._connection = None
            connection.deregister_connect_callback(self._subscribe)
            connection.disconnect()
            self._pool.release(connection)

    def _subscribe(self, _: Any) -> None:
        self._send(self._registry.connected())

    def _send_due(self) -> bool:
        """Send what is due; return whether somebody waits."""
        commands = self._registry.due(time.monotonic())
        self._send(commands or [])
        return commands is not None

    def _send(self, commands: Commands) -> None:
        if commands:
            with self._sending, suppress(*DISCONNECTED):  # the reader notices
                if self._connection:
                    self._connection.send_packed_command(self._connection.pack_commands(commands), check_health=False)


class WakeUps(Subscriptions[Subscription]):
    """Wakes waiting threads when a message is sent: one connection to each server, shared by all threads."""

    def __init__(self, client: Client) -> None:
        super().__init__(Subscription)
        self._client = client

    def subscription(self, name: bytes) -> Subscription:
        """Return the subscription to take a ticket of.

        Raises:
            ChatClosedError: the chat is closed.
            InvalidArgumentError: the client cannot wait.
            redis.exceptions.ConnectionError: no server is known to have the name.
        """
        if not isinstance(self._client, RedisCluster):
            return self._at("", pool_of(self._client))
        node = node_of(self._client, name)
        return self._at(node.name, self._client.get_redis_connection(node).connection_pool)

    def close(self, until: float) -> None:
        """Wake all waiters, for good, and give the readers until then to end."""
        for subscription in self._end():
            subscription.close(until)
