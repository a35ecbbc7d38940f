"""Who waits in this process hears of sends: one connection to each server, shared by all threads.

A send publishes to the name of its channel's log. A thread asks how often that was heard, checks, and waits until it
was heard once more: what is published in between is not lost. Subscribing is heard too, as sends before it are not.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis.cluster import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, ResponseError, SlotNotCoveredError
from redis.exceptions import TimeoutError as RedisTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chat._nodes import Client

__all__ = ["LINGER", "QUIET", "RECONNECT", "Ears"]

QUIET = 5  # seconds without a word until the server is asked whether it is there, and again until it is not
LINGER = 5  # seconds that a name without waiters is still listened to: they mostly come back
RECONNECT = 0.2  # seconds
GONE = (RedisConnectionError, RedisTimeoutError, OSError)
CLOSED = (AttributeError, TypeError, ValueError)  # redis-py's, when another thread closes the client while this reads


class Ears:
    """An ear at each server that somebody waits for."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._ears: dict[str, _Ear] = {}

    def listen(self, name: bytes) -> _Heard:
        """Return what was heard of a name until now."""
        node, pool = self._place(name)
        with self._lock:
            if node not in self._ears:
                self._ears[node] = _Ear(pool, alone=not node)
            return self._ears[node].listen(name)

    def close(self) -> None:
        """Wake all who wait, and give the connections back."""
        for ear in self._ears.values():
            ear.close()

    def _place(self, name: bytes) -> tuple[str, Any]:
        if not isinstance(self._client, RedisCluster):
            return "", self._client.connection_pool
        try:
            node = self._client.get_node_from_key(name)
        except SlotNotCoveredError as error:
            raise RedisConnectionError(str(error)) from error
        return node.name, self._client.get_redis_connection(node).connection_pool


@dataclass(eq=False, slots=True)
class _Name:
    """What is known of a name: how often it was heard, and who waits for it."""

    rung: threading.Condition
    count: int = 0
    waiters: int = 0
    left_at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class _Heard:
    """A moment that a wait begins from."""

    ear: _Ear
    name: _Name
    count: int

    def wait(self, seconds: float) -> None:
        """Wait until the name is heard after that moment, or the time is over."""
        with self.ear.lock:
            self.name.waiters += 1
            try:
                self.name.rung.wait_for(lambda: self.name.count != self.count, seconds)
            finally:
                self.name.waiters -= 1
                self.name.left_at = time.monotonic()
            if self.ear.refused:
                raise self.ear.refused


class _Ear:
    """One connection to one server, read by a thread of its own while somebody waits."""

    def __init__(self, pool: Any, *, alone: bool) -> None:
        self.lock = threading.Lock()
        self.refused: ResponseError | None = None
        self._pool = pool
        self._alone = alone  # not one of a cluster; a successor that sentinels name is found by the pool
        self._names: dict[bytes, _Name] = {}
        self._connection: Any = None
        self._thread: threading.Thread | None = None

    def listen(self, name: bytes) -> _Heard:
        with self.lock:
            if name not in self._names:
                self._names[name] = _Name(threading.Condition(self.lock))
                self._say("SSUBSCRIBE", [name])
            if not (self._thread and self._thread.is_alive()):  # the first; or a fork, that takes no threads along
                self.refused = self._connection = None
                self._thread = threading.Thread(target=self._run, name="chat-ear", daemon=True)
                self._thread.start()
            known = self._names[name]
            known.left_at = time.monotonic()
            return _Heard(self, known, known.count)

    def close(self) -> None:
        with self.lock:
            self._forget(list(self._names))
            if self._connection:
                self._connection.disconnect()  # its reader finds no names, and ends

    def _say(self, word: str, names: Iterable[bytes]) -> None:
        if self._connection:
            commands = [(word, name) for name in names]  # on a cluster a command takes names of one slot only
            with suppress(*GONE):  # its reader notices
                self._connection.send_packed_command(self._connection.pack_commands(commands), check_health=False)

    def _run(self) -> None:
        while self._is_wanted():
            try:
                self._hear()
            except MovedError:
                self._send_away()
            except ResponseError as error:  # no permission, say
                self._send_away(error)
            except (*GONE, *CLOSED):
                time.sleep(RECONNECT)
                if not self._alone:
                    self._send_away()
            else:
                return

    def _send_away(self, refused: ResponseError | None = None) -> None:
        """Let all who wait look where their channel is now, or be told what was refused."""
        with self.lock:
            self.refused = refused
            self._forget(list(self._names))

    def _hear(self) -> None:
        """Listen on one connection until nobody waits any more."""
        connection = self._pool.get_connection()
        try:
            with self.lock:
                self._connection = connection
                self._say("SSUBSCRIBE", self._names)
            asked = False
            while self._is_wanted():
                if connection.can_read(timeout=QUIET):
                    self._heard(connection.read_response(disable_decoding=True, push_request=True))
                    asked = False
                elif asked:
                    raise RedisTimeoutError
                else:
                    asked = True
                    connection.send_command("PING", check_health=False)
        finally:
            with self.lock:
                if self._connection is connection:
                    self._connection = None
            connection.disconnect()
            self._pool.release(connection)

    def _heard(self, reply: Any) -> None:
        kind, name = reply[:2] if isinstance(reply, list) else (reply, b"")
        with self.lock:
            if kind == b"sunsubscribe":
                self._forget([name])  # asked for, or its slot went to another server
            elif name in self._names:
                self._ring(self._names[name])

    def _is_wanted(self) -> bool:
        """Stop listening to what nobody waits for; return whether anything is left, else the thread ends."""
        with self.lock:
            long_ago = time.monotonic() - LINGER
            left = [name for name, known in self._names.items() if not known.waiters and known.left_at < long_ago]
            self._forget(left)
            if left:
                self._say("SUNSUBSCRIBE", left)
            if not self._names:
                self._thread = None
            return bool(self._names)

    def _forget(self, names: list[bytes]) -> None:
        for name in names:
            if known := self._names.pop(name, None):
                self._ring(known)

    def _ring(self, known: _Name) -> None:
        known.count += 1
        known.rung.notify_all()
