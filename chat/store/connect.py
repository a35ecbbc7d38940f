"""A Redis client that outlives short failures."""

from __future__ import annotations

from contextvars import ContextVar
from inspect import iscoroutinefunction
from typing import Any

from redis import Redis
from redis import asyncio as redis_asyncio
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import ClusterError, RedisClusterException
from redis.retry import Retry
from redis.sentinel import Sentinel

from chat._errors import InvalidArgumentError
from chat.store.explain import explain_cluster
from chat.store.nodes import AsyncClient, Client
from chat.store.retry import AsyncSharedRetry, ExplainingAsyncRetry, ExplainingRetry, SharedRetry
from chat.store.urls import CLUSTER, SENTINEL, parse_place

__all__ = ["confirm_client", "connect", "connect_async", "stop_retrying"]

RETRIES = 3
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.5  # seconds
TIMEOUT = 5  # seconds for a connection or a reply: a half-open socket must not hang a caller

WITHIN_COMMAND = ContextVar("WITHIN_COMMAND", default=False)  # of an AsyncCluster


class Cluster(RedisCluster):
    """redis-py's client of a cluster, with pauses between attempts, and the errors of a client of one server."""

    def __init__(self, command_retry: Retry, **options: Any) -> None:
        self.command_retry = command_retry
        try:
            super().__init__(retry=Retry(NoBackoff(), 1), require_full_coverage=False, **options)
        except (RedisClusterException, IndexError) as error:
            raise explain_cluster(error) from error

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run a command on the node that has its key."""
        return self.command_retry.call_with_retry(lambda: self._attempt(args, options), lambda _: None)

    def _attempt(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except (RedisClusterException, ClusterError, AttributeError) as error:
            raise explain_cluster(error) from error


class AsyncCluster(redis_asyncio.RedisCluster):
    """`Cluster` for ``redis.asyncio``, which leaves connections open while it asks for the nodes again.

    redis-py closes those of all nodes then, also where other tasks wait for replies.
    """

    def __init__(self, command_retry: AsyncRetry, **options: Any) -> None:
        self.command_retry = command_retry
        super().__init__(retry=AsyncRetry(NoBackoff(), 1), require_full_coverage=False, **options)

    async def initialize(self, *args: Any, **options: Any) -> Any:
        """Ask which node has which slots, if that is not known: before the first command, and after failures."""
        try:
            if self._initialize:
                await self.nodes_manager.initialize(*args, **options)
                self.commands_parser.node = self.nodes_manager.default_node  # asked when a command is not known
                self._initialize = False
        except (RedisClusterException, IndexError) as error:
            raise explain_cluster(error) from error
        return self

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run a command on the node that has its key."""

        async def again(_: Exception) -> None:
            pass

        return await self.command_retry.call_with_retry(lambda: self._attempt(args, options), again)

    async def _attempt(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        token = WITHIN_COMMAND.set(True)
        try:
            return await super().execute_command(*args, **options)
        except (RedisClusterException, ClusterError, AttributeError) as error:
            raise explain_cluster(error) from error
        finally:
            WITHIN_COMMAND.reset(token)

    async def aclose(self) -> None:
        """Close all connections; within a command, where redis-py calls it, only have the nodes asked for again."""
        if not WITHIN_COMMAND.get():
            await super().aclose()  # which closes none if the nodes are to be asked for again
            await self.nodes_manager.aclose()
            await self.nodes_manager.aclose("startup_nodes")
        self._initialize = True


class AsyncPrimary(redis_asyncio.Redis):
    """A client of the primary that sentinels name; closing it also closes the connections to them."""

    async def aclose(self, *args: Any, **options: Any) -> None:
        """Close all connections."""
        await super().aclose(*args, **options)
        pool: Any = self.connection_pool
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def connect(url: str, *, retries: int = RETRIES, timeout: float = TIMEOUT) -> Client:
    """Return a client for `url` that retries a command whose reply was lost, a few times within about a second.

    ``Redis.from_url`` has no retry of its own in redis-py 8. Retrying is safe: each call carries a token.

    Args:
        url: URL of one server, sentinels or a cluster, in a form that ``REDIS_URL`` may have.
        retries: repeats of one command, at most.
        timeout: seconds for a connection, and for a reply.

    Raises:
        InvalidArgumentError: a URL of another form.
        redis.exceptions.ConnectionError: no node of the cluster answers; one server is first asked when used.
    """
    place, timeouts = parse_place(url), _timeouts(timeout)
    pauses = ExponentialWithJitterBackoff(base=FIRST_PAUSE, cap=LONGEST_PAUSE)
    if place.form == CLUSTER:
        startup = [ClusterNode(host, port) for host, port in place.hosts]
        return Cluster(SharedRetry(pauses, retries), startup_nodes=startup, **timeouts, **place.options)
    retry = ExplainingRetry(pauses, retries)
    if place.form == SENTINEL:
        sentinel = Sentinel(place.hosts, sentinel_kwargs=place.sentinel_options | timeouts)
        client: Redis = sentinel.master_for(place.service, retry=retry, **timeouts, **place.options)
        return client
    return Redis.from_url(place.url, retry=retry, **timeouts)


def connect_async(url: str, *, retries: int = RETRIES, timeout: float = TIMEOUT) -> AsyncClient:
    """Return a client of ``redis.asyncio``; the first command connects, also to a cluster. See `connect`."""
    place, timeouts = parse_place(url), _timeouts(timeout)
    pauses = ExponentialWithJitterBackoff(base=FIRST_PAUSE, cap=LONGEST_PAUSE)
    if place.form == CLUSTER:
        startup = [AsyncClusterNode(host, port) for host, port in place.hosts]
        return AsyncCluster(AsyncSharedRetry(pauses, retries), startup_nodes=startup, **timeouts, **place.options)
    retry = ExplainingAsyncRetry(pauses, retries)
    if place.form == SENTINEL:
        sentinel = AsyncSentinel(place.hosts, sentinel_kwargs=place.sentinel_options | timeouts)
        client: AsyncClient = sentinel.master_for(place.service, AsyncPrimary, retry=retry, **timeouts, **place.options)
        return client
    return redis_asyncio.Redis.from_url(place.url, retry=retry, **timeouts)


def confirm_client(client: Any, *, asynchronous: bool = False, use: str = "", other: str = "") -> None:
    """Check that a client is one of redis-py's.

    Anything with redis-py's ``execute_command`` counts as a client, so wrappers and test doubles are accepted.

    Args:
        client: what a caller passed.
        asynchronous: whether it must be one of ``redis.asyncio``.
        use: what the error recommends.
        other: what the error recommends besides, where the client is of the other kind.

    Raises:
        InvalidArgumentError: it is none, or a sync client in place of an async one or the reverse.
    """
    command = None if isinstance(client, type) else getattr(client, "execute_command", None)
    is_other = isinstance(client, Client) if asynchronous else iscoroutinefunction(command)
    if not callable(command) or is_other:
        kind = client if isinstance(client, type) else type(client)
        was = f"{'the class' if kind is client else 'a'} {kind.__module__}.{kind.__qualname__}".replace("builtins.", "")
        hint = ", or ".join(filter(None, (other if is_other else "", use)))
        allowed = "redis.asyncio.Redis" if asynchronous else "redis.Redis"
        message = f"client is {was}, must be a {allowed} or RedisCluster{hint and f': use {hint}'}"
        raise InvalidArgumentError(message)


def stop_retrying(client: Client | AsyncClient) -> None:
    """Stop the retries of a client of `connect` or `connect_async`, also those under way."""
    retry: Any = None
    if isinstance(client, Cluster | AsyncCluster):
        retry = client.command_retry
    elif isinstance(client, Redis | redis_asyncio.Redis):
        retry = client.get_retry()
    if isinstance(retry, SharedRetry | AsyncSharedRetry):
        retry.update_retries(0)


def _timeouts(seconds: float) -> dict[str, Any]:
    return {"socket_timeout": seconds, "socket_connect_timeout": seconds}
