"""One wait: its checks so far, when it checks again, and when it ends. No I/O, no clock."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chat._errors import InvalidArgumentError
from chat.store.arguments import shown

if TYPE_CHECKING:
    from chat._replies import Checking
    from chat._values import Check

__all__ = ["LONGEST_WAIT", "UNREACHABLE_ERRORS", "Wait", "seconds_to_wait", "timed_out"]

LONGEST_WAIT = 60  # seconds; proxies and browsers allow that much
LONGEST_OUTAGE = 60  # seconds without an answer until a listener gives up
# Seconds until a waiter checks again without a wake-up: it counts as connected, and a lost wake-up delays no longer.
RECHECK = 10
RETRY = 0.5  # seconds between two checks while Redis is away
GRACE = 1.5  # seconds that a check may take beyond the end of its wait
UNREACHABLE_ERRORS = (RedisConnectionError, RedisTimeoutError)


def seconds_to_wait(wait: Any) -> float:
    """Return a wait in seconds, 0 to 60."""
    if isinstance(wait, int | float) and not isinstance(wait, bool) and 0 <= wait <= LONGEST_WAIT:
        return wait
    message = f"wait is {shown(wait)}, must be a number of seconds from 0 to {LONGEST_WAIT}"
    raise InvalidArgumentError(message)


def timed_out() -> RedisTimeoutError:
    """Return the error of a check that was not answered when its wait and the grace period were over."""
    return RedisTimeoutError("Redis did not answer within the wait")


class Wait:
    """One wait: its check is repeated until it has news, or the time is over.

    Args:
        request: the check.
        seconds: seconds to wait.
        client_timeout: seconds without a check until a client is expired.
        now: seconds on a clock, the same here and in every method.
        listens: tolerates an outage until Redis has not answered for LONGEST_OUTAGE, whatever is left of the wait.
        answered: whether Redis has answered before; an outage is only tolerated after an answer.
    """

    check: Check

    def __init__(
        self,
        request: Checking,
        seconds: float,
        client_timeout: float,
        now: float,
        *,
        listens: bool = False,
        answered: bool = False,
    ) -> None:
        self.request = request
        self.log = request.log
        self._client_timeout = client_timeout
        self._deadline = now + seconds
        self._gives_up_at = now + LONGEST_OUTAGE if listens else self._deadline
        self._listens, self._answered = listens, answered
        self._checked = False

    def next(self, now: float) -> Wait:
        """Return a listener's wait: the next one, or its first when this one has not begun."""
        return Wait(self.request, LONGEST_WAIT, self._client_timeout, now, listens=True, answered=self._answered)

    @property
    def news(self) -> bool:
        """Whether the last check is what the caller gets."""
        return self._checked and bool(self.check.messages or self.check.missed)

    def timeout(self, now: float) -> float:
        """Return for how many seconds to wait for the answer to a check."""
        return max(0.0, self._gives_up_at + GRACE - now)

    def succeeded(self, check: Check, now: float) -> None:
        """Take the result of a check; a client that was new when the wait began is so when it ends."""
        if self._checked:
            check = replace(check, new=self.check.new or check.new)
        self.check, self._checked, self._answered = check, True, True
        if self._listens:
            self._gives_up_at = now + LONGEST_OUTAGE
        self.request = self.request.again(check)

    def failed(self, error: Exception, now: float) -> float:
        """Return the seconds to pause before a retry; re-raise when it gives up, or if Redis has never answered."""
        left = self._gives_up_at - now
        if left <= 0 or not self._answered:
            raise error
        return min(left, RETRY)

    def pause(self, now: float) -> float:
        """Return for how many seconds to wait for a wake-up, 0 when the last check is what the caller gets."""
        return 0 if self.news else min(max(0.0, self._deadline - now), RECHECK, self._client_timeout / 3)
