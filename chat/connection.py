"""A Redis client that outlives short failures."""

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

__all__ = ["connect"]

RETRIES = 3
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.5  # seconds
TIMEOUT = 5  # seconds for a connection or a reply: a half-open socket must not hang a caller


def connect(url: str, *, retries: int = RETRIES, timeout: float = TIMEOUT) -> Redis:
    """Return a client for `url` that repeats a command whose reply was lost, a few times within about a second.

    ``Redis.from_url`` has no retry of its own in redis-py 8. Repeating is safe: each call carries a token.

    Args:
        url: redis://, rediss:// or unix://.
        retries: of a command, at most.
        timeout: seconds for a connection, and for a reply.
    """
    return Redis.from_url(
        url,
        retry=Retry(ExponentialWithJitterBackoff(base=FIRST_PAUSE, cap=LONGEST_PAUSE), retries),
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
    )
