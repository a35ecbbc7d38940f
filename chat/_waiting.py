"""A client that waits for news: what it has been told so far, and when it looks again. No I/O, no clock."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chat._arguments import shown
from chat._errors import InvalidArgumentError

if TYPE_CHECKING:
    from chat._messages import Check
    from chat._requests import Checking

__all__ = ["LONGEST_WAIT", "UNREACHABLE", "Waiting", "seconds_to_wait"]

LONGEST_WAIT = 60  # seconds; what proxies and browsers bear
# Seconds until a waiter looks again unasked: it counts as connected, and a wake-up that Redis lost costs no more.
LOOK_AGAIN = 10
RETRY = 0.5  # seconds, while Redis is away
UNREACHABLE = (RedisConnectionError, RedisTimeoutError)


def seconds_to_wait(wait: Any) -> float:
    """Return a wait in seconds, 0 to 60."""
    if isinstance(wait, int | float) and not isinstance(wait, bool) and 0 <= wait <= LONGEST_WAIT:
        return wait
    message = f"wait is {shown(wait)}, must be a number of seconds from 0 to {LONGEST_WAIT}"
    raise InvalidArgumentError(message)


class Waiting:
    """One wait: its check is made again until it tells something, or the time is over.

    Args:
        request: the check.
        seconds: to wait.
        client_timeout: seconds without a check until a client is expired.
        now: seconds of some clock, here and below.
        patient: Redis may be away from the beginning, not only later.
    """

    check: Check

    def __init__(
        self, request: Checking, seconds: float, client_timeout: float, now: float, *, patient: bool = False
    ) -> None:
        self.request = request
        self.log = request.log
        self._deadline = now + seconds
        self._pause = min(LOOK_AGAIN, client_timeout / 3)
        self._patient = patient
        self._checked = False

    def told(self, check: Check) -> None:
        """Take what a check told; a client that was new when the wait began is so when it ends."""
        if self._checked:
            check = replace(check, new=self.check.new or check.new)
        self.check, self._checked = check, True
        self.request = self.request.again(check)

    def failed(self, error: Exception, now: float) -> float:
        """Return for how many seconds to bear an outage; raise the error when the time is over, or had not begun."""
        left = self._deadline - now
        if left <= 0 or not (self._checked or self._patient):
            raise error
        return min(left, RETRY)

    def pause(self, now: float) -> float:
        """Return for how many seconds to wait for a wake-up, 0 when the check is what the caller gets."""
        if self.check.messages or self.check.missed:
            return 0
        return min(max(0.0, self._deadline - now), self._pause)
