"""The calls of a `Chat` to Redis: limits concurrent calls, refuses calls after closing, and runs waits."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import OutOfMemoryError

from chat.store.connect import confirm_client, stop_retrying
from chat.store.scripts import CHECK, out_of_memory
from chat.store.shards import confirm_shards
from chat.waiting.checks import CheckThreads
from chat.waiting.gate import CLOSE_TIMEOUT, Gate, share_of_waiters
from chat.waiting.wait import UNREACHABLE_ERRORS, Wait
from chat.waiting.wake_ups import WakeUps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chat._pages import Pages
    from chat._replies import Checking
    from chat._values import Check, Message
    from chat.store.keys import Keys
    from chat.store.nodes import Client

__all__ = ["Transport"]

T = TypeVar("T")


class Transport:
    """Runs the calls of one chat.

    Args:
        client: a redis-py client.
        keys: names of the keys; their number of shards is confirmed before the first call.

    Raises:
        InvalidArgumentError: `client` is not a redis-py client.
    """

    def __init__(self, client: Client, keys: Keys) -> None:
        confirm_client(client, use="Chat.from_url(url)", other="AsyncChat")
        self.client = client
        self._keys = keys
        self._confirmed = False
        self._gate = Gate(client)
        self._checks = CheckThreads(share_of_waiters(client))
        self._wake_ups = WakeUps(client)

    def store(self, work: Callable[..., Any], *args: Any) -> Any:
        """Return what ``work(client, *args)`` returns.

        Raises:
            ChatFullError: Redis is out of memory.
        """
        try:
            self._confirm_shards()
            with self._gate:
                return work(self.client, *args)
        except OutOfMemoryError as error:
            raise out_of_memory() from error

    def read(self, work: Callable[..., Any], *args: Any) -> Any:
        """Return what ``work(client, *args)`` returns; a full Redis without the number of shards yet is no error."""
        with suppress(OutOfMemoryError):
            self._confirm_shards()
        with self._gate:
            return work(self.client, *args)

    def check(self, request: Checking) -> Check:
        """Return the check of a channel."""
        return request.checked(self.read(CHECK, request.keys, request.args))

    def wait(self, wait: Wait) -> Check:
        """Check until there is news, or the time is over."""
        while True:
            try:
                with self._wake_ups.subscription(wait.log).ticket(wait.log) as ticket:
                    timeout = wait.timeout(time.monotonic())
                    wait.succeeded(self._checks.run(timeout, self.check, wait.request), time.monotonic())
                    pause = wait.pause(time.monotonic())
                    if not pause:
                        return wait.check
                    ticket.event.wait(pause)
                    ticket.raise_refused()
            except UNREACHABLE_ERRORS as error:
                self._gate.closed.wait(wait.failed(error, time.monotonic()))

    def listen(self, wait: Wait) -> Iterator[Message]:
        """Yield the messages of one wait after the other."""
        while True:
            wait = wait.next(time.monotonic())
            yield from self.wait(wait)

    def scan(self, pages: Pages[T], work: Callable[..., Any], *args: Any) -> Iterator[T]:
        """Yield the items of all pages; ``work(client, *args, pages.args)`` reads one."""
        while pages.more:
            yield from pages.take(self.read(work, *args, pages.args))

    def close(self) -> None:
        """End waits and calls, and close the connections."""
        self._gate.closed.set()
        stop_retrying(self.client)
        until = time.monotonic() + CLOSE_TIMEOUT
        try:
            self._wake_ups.close(until)
            self._gate.drain(until)
        finally:
            self.client.close()

    def _confirm_shards(self) -> None:
        if not self._confirmed:
            with self._gate:
                confirm_shards(self.client, self._keys, create=True)
            self._confirmed = True
