"""What is measured, and how: figures with quartiles, rounds in which the candidates take turns."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from redis import Redis
from servers import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BODY = {
    "from": "alice",
    "text": "Does anybody know how to mount a disk from the command line? It says: bad superblock.",
}
FORK = multiprocessing.get_context("fork")  # sixty-four processes within a second; no thread runs here


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number, its quartiles over the rounds, and the target it is held against."""

    row: str
    what: str
    unit: str  # "x" for a ratio
    samples: list[float]
    limit: float | None = None
    at_least: bool = False  # the limit is the least, not the most
    note: str = ""
    raw: dict[str, float] = field(default_factory=dict)  # medians of what a ratio is made of

    @property
    def value(self) -> float:
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.samples) < 2:
            return self.value, self.value
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return low, high

    @property
    def met(self) -> bool | None:
        if self.limit is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"value": self.value, "quartiles": self.quartiles, "met": self.met}


@dataclass
class Bench:
    """One engine under measurement: its server, how long, how large."""

    server: Server
    folder: Path
    quick: bool
    figures: list[Figure] = field(default_factory=list)

    @property
    def rounds(self) -> int:
        return 2 if self.quick else 9

    @property
    def seconds(self) -> float:
        """How long one candidate works in one round."""
        return 0.03 if self.quick else 0.2

    def client(self) -> Redis:
        return Redis(port=self.server.port, socket_timeout=120)

    @contextmanager
    def another(self) -> Iterator[Redis]:
        """Yield a client of a new server of the same engine."""
        server = Server(self.server.engine, self.folder).start()
        try:
            with server.client() as redis:
                yield redis
        finally:
            server.stop()

    def add(self, row: str, what: str, samples: list[float], unit: str = "x", **more: Any) -> None:
        self.figures.append(Figure(row=row, what=what, unit=unit, samples=samples, **more))

    def compare(
        self,
        row: str,
        ours: str,
        rates: dict[str, list[float]],
        targets: dict[str, tuple[float, bool]],
        note: str = "",
    ) -> None:
        """Add a ratio for each other candidate: how long ours takes in its time, or how often ours goes for its once.

        Args:
            row: of the table.
            ours: name among the rates.
            rates: calls a second of each candidate, round by round.
            targets: of each candidate a limit, and whether that is the least rate (else the most time) of ours.
            note: for all of them.
        """
        for name, theirs in rates.items():
            if name != ours:
                limit, faster = targets.get(name, (None, not name.startswith("bare")))
                pairs = zip(rates[ours], theirs, strict=True)
                ratios = [mine / other if faster else other / mine for mine, other in pairs]
                raw = {f"{ours} /s": statistics.median(rates[ours]), f"{name} /s": statistics.median(theirs)}
                what = f"rate, of {name}" if faster else f"time, of {name}"
                self.add(row, what, ratios, limit=limit, at_least=faster, note=note, raw=raw)


def in_turn(
    bench: Bench, candidates: dict[str, Callable[[float], float]], before: Callable[[], object] | None = None
) -> dict[str, list[float]]:
    """Let the candidates work in turn, round by round; the one that begins changes. Return their rates.

    Args:
        bench: says how many rounds.
        candidates: each works for about so many seconds, and returns its calls a second.
        before: done ahead of each round.
    """
    rates: dict[str, list[float]] = defaultdict(list)
    names = list(candidates)
    for turn in range(bench.rounds):
        if before:
            before()
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            rates[name].append(candidates[name](bench.seconds))
    return {name: rates[name] for name in names}


def timed(call: Callable[[], object], seconds: float) -> float:
    """Return how often a second a call can be made, over so many seconds."""
    call()  # connects
    count, start = 0, time.perf_counter()
    while (took := time.perf_counter() - start) < seconds:
        for _ in range(10):
            call()
        count += 10
    return count / took


def crew(size: int, begin: Callable[[int], Callable[[], object]], seconds: float) -> float:
    """Return the calls a second of so many processes together, each at what `begin` gives for its number."""
    barrier, counts = FORK.Barrier(size), FORK.SimpleQueue()

    def work(number: int) -> None:
        call = begin(number)
        call()
        barrier.wait(60)
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            call()
            count += 1
        counts.put(count / (time.perf_counter() - start))

    crowd = [FORK.Process(target=work, args=(number,)) for number in range(size)]
    for process in crowd:
        process.start()
    total = sum(counts.get() for _ in crowd)
    for process in crowd:
        process.join()
    return total
