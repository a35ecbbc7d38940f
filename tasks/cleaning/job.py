"""One run of a sweep: what its parts share, how long it may take, and how far it has come."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tasks.cleaning.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from chat.store.nodes import Client

__all__ = ["BATCH", "Job"]

PROGRESS_EVERY = 0.5  # seconds
# Candidates a call, under 0.5 ms of the server's time: senders beside a sweep wait for as long.
BATCH = 40


class Job:
    """One run of a sweep.

    Args:
        client: client of the chat's Redis.
        seconds: seconds that the run may take, None for no end.
        progress: function that is called with the number of candidates handled and due.

    Attributes:
        tally: what the run has counted so far.
        batch: candidates that a call asks for.
        expected: candidates that were due when the run began.
    """

    def __init__(self, client: Client, seconds: float | None, progress: Callable[[int, int], object] | None) -> None:
        self.client, self.tally = client, Tally()
        self.batch, self.expected = BATCH, 0
        self._seconds, self._progress = seconds, progress
        self._started = self._tell_at = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._started

    def candidates(self) -> int:
        """Return how many candidates to ask for: none when the time is over."""
        return 0 if self._seconds is not None and self.elapsed >= self._seconds else self.batch

    def tell(self, *, at_end: bool = False) -> None:
        """Report progress; not at every batch, as a listener may cost more than that."""
        if self._progress and (at_end or time.monotonic() >= self._tell_at):
            self._tell_at = time.monotonic() + PROGRESS_EVERY
            self._progress(self.tally.handled, max(self.expected, self.tally.handled))
