"""The removal of what is due by one rule in one shard, batch by batch, by the run that holds the shard's lease."""

from __future__ import annotations

import secrets
from contextlib import suppress
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisClusterException, RedisError

from chat.store.nodes import raise_first
from chat.store.scripts import Call, call_all
from tasks.cleaning.calls import LEASE_MS
from tasks.cleaning.scripts import EPOCH

if TYPE_CHECKING:
    from tasks.cleaning.calls import Calls
    from tasks.cleaning.hand_over import HandOver
    from tasks.cleaning.run import Run

__all__ = ["Removal"]


class Removal:
    """The removal of what is due by one rule in one shard.

    Args:
        run: the run, which takes the lease.
        calls: the calls of the rule in the shard.
        destinations: the archive, which gets messages first, and the hook, which is told what was removed.
    """

    def __init__(self, run: Run, calls: Calls, destinations: HandOver) -> None:
        self._run, self._calls, self._destinations = run, calls, destinations
        self._offset = 0  # refused channels at the head of the index; those behind others that wait are named again

    def run(self) -> None:
        """Remove until nothing is due, the time is over, or another run turns out to be at work.

        The lease is given back whatever happens.
        """
        try:
            self._work()
        except BaseException:
            self._release()
            raise

    def _work(self) -> None:
        """Remove batch by batch: each round trip removes one and names the next."""
        tally = self._run.tally
        _, batch = self._ask(self._calls.take(self._run.lease), self._next())
        while names := batch[2 : 2 + self._run.batch]:
            ids = self._hand_over([name for name in names if name not in tally.refused])
            self._offset += sum(1 for _ in takewhile(tally.refused.__contains__, names))
            names = [name for name in names if name not in tally.refused]
            ready = [name for name in names if ids.get(name, 0) >= 0]
            removed, batch = self._remove(ready, [ids[name] for name in ready if ids])
            if not removed:
                self._stop()
                return
            counts, of_names, errors = removed
            tally.refuse_places(ready, errors)
            tally.add(names, self._calls.rule.counted(counts))
            tally.watch(names, fruitful=any(counts))
            self._destinations.announce(ready, of_names)
            raise_first([batch])
            self._run.tell()
        if batch:
            tally.note_rest(*batch[:2])
            if batch[0]:  # the time is over, or what is left cannot be cleaned
                self._release()
        else:
            tally.busy.add(self._calls.shard)

    def _ask(self, *calls: Call) -> list[Any]:
        return raise_first(call_all(self._run.client, calls))

    def _next(self) -> Call:
        return self._calls.next(self._run.lease, self._offset, self._run.candidates(), self._run.mark(self._calls.rule))

    def _hand_over(self, names: list[bytes]) -> dict[bytes, int]:
        """Give the archive what is about to go; return up to which id it has each channel, nothing without an archive.

        A shard that nobody checked has no epoch yet: it is made here, and read before the messages.
        """
        reading = self._calls.rule.read
        if not (names and self._destinations.archive and reading):
            return {}
        meta = self._calls.keys.of_shard(self._calls.shard, "meta")
        making = Call(EPOCH, meta, (secrets.token_hex(6),))
        epoch, (slices, errors) = self._ask(making, self._calls.look(reading, names))
        self._run.tally.refuse_places(names, errors)
        return self._destinations.keep(names, slices, epoch=str(epoch, "ascii"), run=self._run.lease.owner)

    def _remove(self, names: list[bytes], ids: list[int]) -> tuple[Any, Any]:
        """Remove a batch and name the next; an error of the latter is returned, as the batch is gone all the same."""
        if not names:
            return ([], [], []), *self._ask(self._next())
        removal = self._calls.remove(self._run.lease, names, ids)
        removed, batch = call_all(self._run.client, [removal, self._next()])
        raise_first([removed])
        return removed, batch

    def _stop(self) -> None:
        """Leave the shard, as the lease was lost. What was handed over and not removed is handed over again."""
        ((due, *_),) = self._ask(self._calls.due(0, 0))
        if due:  # else others removed what was named, and the lease was given back as nothing was left
            self._run.tally.busy.add(self._calls.shard)
            lease = f"the lease was lost: it lapses {LEASE_MS // 1000} s after the last call to Redis"
            advice = "one call of CHAT_ARCHIVE or CHAT_ON_EXPIRE must take less"
            self._run.tally.fail(f"shard {self._calls.shard}", f"{lease}, {advice}")

    def _release(self) -> None:
        with suppress(RedisError, RedisClusterException):  # it lapses by itself
            self._ask(self._calls.release(self._run.lease))
