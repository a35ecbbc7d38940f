"""Search by hand, as far as the time allows: ``python -m tests.model --minutes 30 [--model NAME] [--mutations]``."""

# ruff: noqa: T201  it prints

from __future__ import annotations

import argparse
import sys
import time

from tests.model.explore import Result, Search
from tests.model.models import MODELS
from tests.model.mutations import MUTATIONS

MOST = 20_000  # states until a mutation must be noticed
ROW = "{:<26} {:>9} {:>12} {:>6} {:>9} {:>8}  {}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="for all models together")
    parser.add_argument(
        "--model", action="append", choices=MODELS, metavar="NAME", help="only this one; may be repeated"
    )
    parser.add_argument("--mutations", action="store_true", help="take away each protection instead")
    options = parser.parse_args()
    if options.mutations:
        return mutate()
    return search(options.model or list(MODELS), options.minutes * 60)


def search(names: list[str], seconds: float) -> int:
    """Give each model its share of the time that is left; return 1 if a promise was broken."""
    print(ROW.format("model", "states", "transitions", "depth", "complete", "seconds", "broken"))
    end, broken = time.monotonic() + seconds, 0
    for left, name in zip(range(len(names), 0, -1), names, strict=True):
        share = time.monotonic() + (end - time.monotonic()) / left
        result = Search(MODELS[name]).run(sys.maxsize, lambda share=share: time.monotonic() >= share)
        show(result)
        broken = broken or bool(result.broken)
    return int(broken)


def show(result: Result) -> None:
    complete, seconds = "yes" if result.complete else "no", f"{result.seconds:.0f}"
    numbers = result.states, result.transitions, result.depth, complete, seconds
    print(ROW.format(result.model, *numbers, result.broken or "-"), flush=True)
    for line in [result.why, *result.trace] if result.broken else []:
        print(f"    {line}")


def mutate() -> int:
    missed = 0
    for mutation in MUTATIONS:
        result = Search(MODELS[mutation.model], mutation).run(MOST)
        seen = result.broken == mutation.breaks
        missed += not seen
        print(
            f"{'ok  ' if seen else 'MISS'} {mutation.name}: {result.broken or 'nothing'} in {result.model}", flush=True
        )
        for line in [result.why, *result.trace]:
            print(f"         {line}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
