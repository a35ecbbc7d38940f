"""What a cron expression means, as Celery reads it, and whether it comes true often enough to be a schedule.

A schedule is refused where all settings are, and chat does not import Celery: a test compares the two readings.
"""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import date
from functools import cache
from itertools import pairwise

__all__ = ["Cron", "parse_cron"]

Cron = tuple[frozenset[int], ...]

MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MONTHS = {name: number for number, name in enumerate(MONTH_NAMES, 1)}
WEEKDAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
# Of each field the lowest and the highest value, and names of values.
FIELDS: tuple[tuple[int, int, dict[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, MONTHS),
    (0, 6, WEEKDAYS),
)
PART = re.compile(r"(?:\*|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>[1-9]\d*))?", re.ASCII)

GAP = 8  # years between two runs, at most: as many as between two leap days about the year 2100
CYCLE = range(2001, 2029)  # years until all dates have their weekday again


@cache
def parse_cron(expression: str) -> Cron:
    """Return the values of each field: minutes, hours, days of the month, months, days of the week.

    A run comes when all five match, both kinds of day as well.

    Raises:
        ValueError: it is no cron expression, or more than `GAP` years lie between two runs.
    """
    words = expression.split()
    cron = tuple(_values(word, *rule) for word, rule in zip(words, FIELDS, strict=True))
    years = [year for year in CYCLE if _comes_true(year, cron)]
    if not years or any(later - year > GAP for year, later in pairwise([*years, years[0] + len(CYCLE)])):
        raise ValueError
    return cron


def _values(field: str, low: int, high: int, names: dict[str, int]) -> frozenset[int]:
    return frozenset(value for part in field.split(",") for value in _of_part(part, low, high, names))


def _of_part(part: str, low: int, high: int, names: dict[str, int]) -> list[int]:
    found = PART.fullmatch(part)
    if not found or (found["step"] and found["first"] and not found["last"]):
        raise ValueError
    first = _number(found["first"], names) if found["first"] else low
    last = _number(found["last"], names) if found["last"] else first if found["first"] else high
    if not (low <= first <= high and low <= last <= high):
        raise ValueError
    span = range(first, last + 1) if first <= last else [*range(first, high + 1), *range(low, last + 1)]
    return list(span)[:: int(found["step"] or 1)]


def _number(word: str, names: dict[str, int]) -> int:
    number = names.get(word[:3].lower())
    return int(word) if number is None else number


def _comes_true(year: int, cron: Cron) -> bool:
    _, _, days, months, weekdays = cron
    return any(
        day <= monthrange(year, month)[1] and date(year, month, day).isoweekday() % 7 in weekdays
        for month in months
        for day in days
    )
