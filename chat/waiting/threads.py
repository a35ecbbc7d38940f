"""Wake-ups for threads: one connection to each server hears of sends, and wakes the threads that wait for them."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from redis.cluster import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, ResponseError, SlotNotCoveredError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chat._errors import ChatClosedError
from chat.store.nodes import CUT_OFF
from chat.waiting.gate import GONE, pool_to_wait_with
from chat.waiting.registry import QUIET, RECONNECT, Registry, Ticket

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from chat.store.nodes import Client

__all__ = ["WakeUps"]


class WakeUps:
    """Wakes waiting threads when a message is sent: one connection to each server, shared by all threads."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._closed = False
        self._subscriptions: dict[tuple[int, str], Subscription] = {}

    def subscription(self, name: bytes) -> Subscription:
        """Return what hears of a name.

        Raises:
            ChatClosedError: there are no more wake-ups.
            InvalidArgumentError: the client cannot wait.
            redis.exceptions.ConnectionError: no server is known to have the name.
        """
        node, pool = self._place(name)
        with self._lock:
            if self._closed:
                raise ChatClosedError
            of_process = (os.getpid(), node)  # a fork takes no threads along
            if of_process not in self._subscriptions:
                self._subscriptions[of_process] = Subscription(pool, alone=not node)
            return self._subscriptions[of_process]

    def close(self, until: float) -> None:
        """Wake all waiters, for good, and give the readers until then to end."""
        with self._lock:
            self._closed = True
            subscriptions = [subscription for of, subscription in self._subscriptions.items() if of[0] == os.getpid()]
        for subscription in subscriptions:
            subscription.close(until)

    def _place(self, name: bytes) -> tuple[str, Any]:
        if not isinstance(self._client, RedisCluster):
            return "", pool_to_wait_with(self._client)
        try:
            node = self._client.get_node_from_key(name)
        except SlotNotCoveredError as error:
            raise RedisConnectionError(str(error)) from error
        return node.name, self._client.get_redis_connection(node).connection_pool


class Subscription:
    """One connection to one server, read by a thread of its own while somebody waits.

    Args:
        pool: where the connection comes from.
        alone: the server is not one of a cluster; a successor that sentinels name is found by the pool.
    """

    def __init__(self, pool: Any, *, alone: bool) -> None:
        self._pool, self._alone = pool, alone
        self._registry = Registry(threading.Event)
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._connection: Any = None
        self._sending = threading.RLock()  # not the lock above: a full socket may hold a sender, but no waiter
        self._reading = False
        self._reader: threading.Thread | None = None

    @contextmanager
    def ticket(self, name: bytes) -> Iterator[Ticket]:
        """Take a ticket for the time of the block."""
        with self._lock:
            ticket = self._registry.ticket(name)
            if not (self._reading and self._reader and self._reader.is_alive()):
                self._reading = True
                self._reader = threading.Thread(target=self._run, name="chat-wake-ups", daemon=True)
                self._reader.start()
        try:
            if ticket.fresh:
                self._send("SSUBSCRIBE", [name])
            yield ticket
        finally:
            with self._lock:
                ticket.leave(time.monotonic())

    def close(self, until: float) -> None:
        """Wake all waiters, and let the reader end: killed at the interpreter's exit, it could hold the pool's lock."""
        self._closed.set()
        self._drop()
        self._send("PING")  # its reader wakes
        if self._reader:
            self._reader.join(max(0.0, until - time.monotonic()))

    def _drop(self, refused: ResponseError | None = None) -> None:
        """Wake all waiters: to look where their channel is now, or to be told what was refused."""
        with self._lock:
            self._registry.drop(self._registry.names, refused)

    def _run(self) -> None:
        while self._is_wanted():
            try:
                self._read()
            except MovedError:
                self._drop()
            except ResponseError as error:  # no permission, say
                self._drop(error)
            except GONE:
                self._closed.wait(RECONNECT)
                if not self._alone:
                    self._drop()
            else:
                return

    def _read(self) -> None:
        """Listen on one connection until nobody waits any more."""
        connection = self._pool.get_connection()
        connection.register_connect_callback(self._subscribe)  # redis-py connects anew by itself
        try:
            with self._sending:
                self._connection = connection
                self._subscribe(connection)
            self._read_from(connection)
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

    def _read_from(self, connection: Any) -> None:
        asked = False
        while self._is_wanted():
            if connection.can_read(timeout=QUIET):
                reply = connection.read_response(disable_decoding=True, push_request=True)
                asked = False
                with self._lock:
                    self._registry.heard(reply)
            elif asked:
                raise RedisTimeoutError
            else:
                asked = True
                self._send("PING")

    def _subscribe(self, _: Any) -> None:
        with self._lock:
            names = self._registry.names
        self._send("SSUBSCRIBE", names)

    def _send(self, word: str, names: Iterable[bytes] | None = None) -> None:
        commands = [(word,)] if names is None else [(word, name) for name in names]  # of one slot each on a cluster
        with self._sending, suppress(*GONE):  # the reader notices
            if self._connection:
                self._connection.send_packed_command(self._connection.pack_commands(commands), check_health=False)

    def _is_wanted(self) -> bool:
        """Unsubscribe from names that nobody waits for; return whether any is left, else the thread ends."""
        with self._lock:
            idle = self._registry.idle(time.monotonic())
            self._reading = wanted = bool(self._registry.names)
        if idle and wanted:
            self._send("SUNSUBSCRIBE", idle)
        return wanted
