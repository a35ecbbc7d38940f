"""Retries: one policy for all connections of a client, which can be stopped, and what a node leaves unanswered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from redis.asyncio.retry import Retry as AsyncRetry
from redis.exceptions import AskError, ClusterDownError, RedisError, SlotNotCoveredError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from chat.store.explain import explain_server

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

__all__ = ["UNANSWERED", "AsyncSharedRetry", "ExplainingAsyncRetry", "ExplainingRetry", "SharedRetry", "ask_again"]

# A node is gone, or has given the slot away (MovedError is an AskError): the cluster's client finds out who has it now.
UNANSWERED = (RedisConnectionError, RedisTimeoutError, SlotNotCoveredError, AskError, TryAgainError, ClusterDownError)
T = TypeVar("T")


class SharedRetry(Retry):
    """A retry that all connections of a client share, where redis-py would copy it: stopping it stops them all."""

    def __deepcopy__(self, _: object) -> SharedRetry:
        return self


class AsyncSharedRetry(AsyncRetry):
    """`SharedRetry` for ``redis.asyncio``."""

    def __deepcopy__(self, _: object) -> AsyncSharedRetry:
        return self


class ExplainingRetry(SharedRetry):
    """A retry that explains its errors, for every command and connection attempt of one server's client."""

    def call_with_retry(self, *args: Any, **options: Any) -> Any:
        """Call a function until it succeeds or the attempts are over."""
        try:
            return super().call_with_retry(*args, **options)
        except RedisError as error:
            explain_server(error)
            raise


class ExplainingAsyncRetry(AsyncSharedRetry):
    """`ExplainingRetry` for ``redis.asyncio``."""

    async def call_with_retry(self, *args: Any, **options: Any) -> Any:
        """Call a function until it succeeds or the attempts are over."""
        try:
            return await super().call_with_retry(*args, **options)
        except RedisError as error:
            explain_server(error)
            raise


def ask_again(commands: Sequence[T], replies: list[Any], own: list[int]) -> Generator[T, Any, None]:
    """Yield each command of a node that it did not answer, and put the reply that is sent back into its place.

    A command that fails once more answers for those after it: its node is gone, and each attempt takes a second.
    """
    failed: Exception | None = None
    for index in own:
        if isinstance(replies[index], UNANSWERED):
            replies[index] = failed or (yield commands[index])
            if isinstance(replies[index], UNANSWERED):
                failed = replies[index]
