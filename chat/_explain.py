"""What redis-py's errors mean when a URL does not fit its server: the same exceptions, in words that say what to do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from redis.asyncio.retry import Retry as AsyncRetry
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from chat._urls import redact_url

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ExplainingAsyncRetry", "ExplainingRetry", "describe_outage", "explain", "explain_cluster"]

SERVER = "redis://host:port/db"
CLUSTER = "redis+cluster://host:port,host:port"
SENTINEL = "redis+sentinel://host:port/service/db"
NO_SLOTS = "the cluster has no slots yet: create it, or wait until that is done"

# Regular expressions of what redis-py says, and what is said in its place. The first that is found counts.
EXPLANATIONS = (
    (
        r"No master found for '.*?' : .*auth:",
        "the sentinels ask for another password: put it into the URL, ?sentinel_password=...",
    ),
    (
        r"No master found for '(.*?)' : .* - (?:.*:)?(.*)",
        r"no sentinel can be asked for '\1' (\2): start them, or put their hosts and ports into the URL",
    ),
    (
        r"No master found for '(.*?)'",
        r"the sentinels name no primary for '\1': it is down, or the URL should end in another name, /service/db",
    ),
    (
        r"HELLO must be called with the client already authenticated|Authentication required",
        "Redis asks for a password: put it into the URL, redis://:password@host",
    ),
    (
        r"invalid username-password pair",
        "Redis refuses the user or the password: correct them in the URL, redis://user:password@host",
    ),
    (r"unknown command .?SENTINEL", f"this is a Redis server, no sentinel: its URL is {SERVER}"),
    (r"unknown command .?GET\b", f"this is a sentinel, no Redis server: the URL of what it watches is {SENTINEL}"),
    (r"Cluster mode is not enabled on this node", f"this is no node of a cluster: its URL is {SERVER}"),
    (r"DB index is out of range", r"Redis has no database of that number: end the URL in another one, /0 say"),
    (r"Redis Cluster cannot be connected\..*?: None", NO_SLOTS),
    (r"Redis Cluster cannot be connected\..*?: (.*)", r"no node of the cluster answers: \1"),
)
# The same of what only a client of one server lets its callers see: one of a cluster asks again.
OF_ONE_SERVER = (
    (
        r"^\d+ \S*:\d+$|Hash slot not served|The cluster is down|SELECT is not allowed in cluster mode",
        rf"this is a node of a cluster: its URL is {CLUSTER} (\g<0>)",
    ),
)

# What an outage looks like, and a port on which only one of the two sides expects TLS, too.
TLS = (
    ("rediss", r"Timeout connecting", "start it, or begin the URL with redis if it has no TLS"),
    ("redis", r"reset by peer|[Cc]onnection closed", "start it, or begin the URL with rediss if it expects TLS"),
)


def explain(error: Exception, explanations: Iterable[tuple[str, str]]) -> None:
    """Let an error say what to do where redis-py's words are a riddle; those are kept as a note of it."""
    text = str(error)
    if getattr(error, "__notes__", None):
        return  # at an inner attempt
    for pattern, meaning in explanations:
        if match := re.search(pattern, text, re.DOTALL):
            error.args = (match.expand(meaning),)
            error.add_note(f"redis-py says: {text}")
            return


def explain_cluster(error: Exception) -> RedisConnectionError:
    """Return the error of a cluster as one that says "unreachable" as a client of one server does."""
    if isinstance(error, IndexError):  # redis-py's, where a node's table of slots is empty
        return RedisConnectionError(NO_SLOTS)
    refused = re.search("HELLO must be called|Authentication required|invalid username-password", str(error))
    explained = (AuthenticationError if refused else RedisConnectionError)(str(error))
    explain(explained, EXPLANATIONS)
    return explained


def describe_outage(error: Exception, url: str) -> str:
    """Return in one line that Redis cannot be used, and what to do."""
    where, text = redact_url(url), " ".join(str(error).split()).rstrip(".")
    if getattr(error, "__notes__", None):
        return f"{where}: {text}"
    scheme = url.partition("://")[0].partition("+")[0]
    hints = [hint for tls, pattern, hint in TLS if tls == scheme and re.search(pattern, text)]
    return f"no Redis at {where} ({text}): {(*hints, 'start one with ./deploy/up, or set REDIS_URL')[0]}"


class ExplainingRetry(Retry):
    """The retry of one server's client, through which each command and each connecting goes: it explains errors."""

    def call_with_retry(self, *args: Any, **options: Any) -> Any:
        """Run what may fail, again and again."""
        try:
            return super().call_with_retry(*args, **options)
        except RedisError as error:
            explain(error, EXPLANATIONS + OF_ONE_SERVER)
            raise


class ExplainingAsyncRetry(AsyncRetry):
    """The same of ``redis.asyncio``."""

    async def call_with_retry(self, *args: Any, **options: Any) -> Any:
        """Run what may fail, again and again."""
        try:
            return await super().call_with_retry(*args, **options)
        except RedisError as error:
            explain(error, EXPLANATIONS + OF_ONE_SERVER)
            raise
