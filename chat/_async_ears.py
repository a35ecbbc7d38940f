"""As ``_ears``, for asyncio: one connection to each server, shared by all tasks of a loop."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis.asyncio import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, ResponseError, SlotNotCoveredError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chat._ears import GONE, LINGER, QUIET, RECONNECT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chat._nodes import AsyncClient

__all__ = ["AsyncEars"]


class AsyncEars:
    """An ear at each server that somebody waits for."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._ears: dict[str, _Ear] = {}

    async def listen(self, name: bytes) -> _Heard:
        """Return what was heard of a name until now."""
        node, pool = await self._place(name)
        if node not in self._ears:
            self._ears[node] = _Ear(pool, alone=not node)
        return await self._ears[node].listen(name)

    async def close(self) -> None:
        """Wake all who wait, and give the connections back."""
        for ear in self._ears.values():
            await ear.close()

    async def _place(self, name: bytes) -> tuple[str, Any]:
        if not isinstance(self._client, RedisCluster):
            return "", self._client.connection_pool
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
        await connection.connect()
        return connection

    async def release(self, connection: Any) -> None:
        self._node.release(connection)


@dataclass(eq=False, slots=True)
class _Name:
    """What is known of a name: who waits for it is woken by its event, which is then another one."""

    rung: asyncio.Event = field(default_factory=asyncio.Event)
    waiters: int = 0
    left_at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class _Heard:
    """A moment that a wait begins from."""

    ear: _Ear
    name: _Name
    rung: asyncio.Event

    async def wait(self, seconds: float) -> None:
        """Wait until the name is heard after that moment, or the time is over."""
        self.name.waiters += 1
        try:
            async with asyncio.timeout(seconds):
                await self.rung.wait()
        except TimeoutError:
            pass
        finally:
            self.name.waiters -= 1
            self.name.left_at = time.monotonic()
        if self.ear.refused:
            raise self.ear.refused


class _Ear:
    """One connection to one server, read by a task of its own while somebody waits."""

    def __init__(self, pool: Any, *, alone: bool) -> None:
        self.refused: ResponseError | None = None
        self._pool = pool
        self._alone = alone
        self._names: dict[bytes, _Name] = {}
        self._connection: Any = None
        self._task: asyncio.Task[None] | None = None

    async def listen(self, name: bytes) -> _Heard:
        known = self._names.get(name)
        if not known:
            known = self._names[name] = _Name()
            await self._say("SSUBSCRIBE", [name])
        if not self._task or self._task.done():
            self.refused = self._connection = None
            self._task = asyncio.create_task(self._run(), name="chat-ear")
        known.left_at = time.monotonic()
        return _Heard(self, known, known.rung)

    async def close(self) -> None:
        # First: should redis-py lose the cancellation while it connects, the task ends all the same.
        self._forget(list(self._names))
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _say(self, word: str, names: Iterable[bytes]) -> None:
        if self._connection:
            commands = [(word, name) for name in names]  # on a cluster a command takes names of one slot only
            with suppress(*GONE):  # its reader notices
                await self._connection.send_packed_command(
                    b"".join(self._connection.pack_commands(commands)), check_health=False
                )

    async def _run(self) -> None:
        while await self._is_wanted():
            try:
                await self._hear()
            except MovedError:
                self._send_away()
            except ResponseError as error:  # no permission, say
                self._send_away(error)
            except GONE:
                await asyncio.sleep(RECONNECT)
                if not self._alone:
                    self._send_away()
            else:
                return

    def _send_away(self, refused: ResponseError | None = None) -> None:
        """Let all who wait look where their channel is now, or be told what was refused."""
        self.refused = refused
        self._forget(list(self._names))

    async def _hear(self) -> None:
        """Listen on one connection until nobody waits any more."""
        connection = await self._pool.get_connection()
        try:
            self._connection = connection
            await self._say("SSUBSCRIBE", list(self._names))
            asked = False
            while await self._is_wanted():
                reply = await connection.read_response(
                    disable_decoding=True, timeout=QUIET, disconnect_on_error=False, push_request=True
                )
                if reply is not None:
                    self._heard(reply)
                    asked = False
                elif asked:
                    raise RedisTimeoutError
                else:
                    asked = True
                    await connection.send_command("PING", check_health=False)
        finally:
            if self._connection is connection:
                self._connection = None
            await connection.disconnect()
            await self._pool.release(connection)

    def _heard(self, reply: Any) -> None:
        kind, name = reply[:2] if isinstance(reply, list) else (reply, b"")
        if kind == b"sunsubscribe":
            self._forget([name])  # asked for, or its slot went to another server
        elif name in self._names:
            self._ring(self._names[name])

    async def _is_wanted(self) -> bool:
        """Stop listening to what nobody waits for; return whether anything is left, else the task ends."""
        long_ago = time.monotonic() - LINGER
        left = [name for name, known in self._names.items() if not known.waiters and known.left_at < long_ago]
        self._forget(left)
        if left:
            await self._say("SUNSUBSCRIBE", left)
        if not self._names:
            self._task = None
        return bool(self._names)

    def _forget(self, names: list[bytes]) -> None:
        for name in names:
            if known := self._names.pop(name, None):
                self._ring(known)

    def _ring(self, known: _Name) -> None:
        known.rung.set()
        known.rung = asyncio.Event()
