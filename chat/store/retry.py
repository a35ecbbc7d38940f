"""Retries of the clients of `connect`: one policy for all connections of a client, which can be stopped."""

from __future__ import annotations

from typing import Any

from redis.asyncio.retry import Retry as AsyncRetry
from redis.exceptions import RedisError
from redis.retry import Retry

from chat.store.explain import explain_server

__all__ = ["AsyncSharedRetry", "ExplainingAsyncRetry", "ExplainingRetry", "SharedRetry"]


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
