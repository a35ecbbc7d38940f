"""How the clients that we make repeat a command: one policy for all connections, that can be stopped and explains."""

from __future__ import annotations

from typing import Any

from redis.asyncio.retry import Retry as AsyncRetry
from redis.exceptions import RedisError
from redis.retry import Retry

from chat.store.explain import explain_server

__all__ = ["AsyncOneRetry", "ExplainingAsyncRetry", "ExplainingRetry", "OneRetry"]


class OneRetry(Retry):
    """A retry that a client's connections share, where redis-py would copy it: it can be stopped for all of them."""

    def __deepcopy__(self, _: object) -> OneRetry:
        return self


class AsyncOneRetry(AsyncRetry):
    """`OneRetry` for ``redis.asyncio``."""

    def __deepcopy__(self, _: object) -> AsyncOneRetry:
        return self


class ExplainingRetry(OneRetry):
    """Explains what it raises. Every command and connection attempt of one server's client uses it."""

    def call_with_retry(self, *args: Any, **options: Any) -> Any:
        """Run `do`, and again when it fails."""
        try:
            return super().call_with_retry(*args, **options)
        except RedisError as error:
            explain_server(error)
            raise


class ExplainingAsyncRetry(AsyncOneRetry):
    """`ExplainingRetry` for ``redis.asyncio``."""

    async def call_with_retry(self, *args: Any, **options: Any) -> Any:
        """Run `do`, and again when it fails."""
        try:
            return await super().call_with_retry(*args, **options)
        except RedisError as error:
            explain_server(error)
            raise
