"""When beat sends a run: from where the last beat ended, whatever happened to beat, Redis or the clock in between."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from celery.beat import SchedulingError
from lab import Lab
from servers import BINARIES, Server, beat, eventually, free_port

from chat.store.connect import connect
from chat.store.keys import Keys
from tasks import beat_schedule
from tasks.cleaning import clean_channels
from tasks.cleaning.record import note_scheduled
from tasks.robust import scheduler
from tasks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DAY = 86400
ENTRIES = [f"clean_{what} 1/1" for what in ("channels", "backlog", "clients")]


class Beat(scheduler.Scheduler):
    """Beat's scheduler, whose clock need not run: what it publishes is noted, and a publish may be refused."""

    def __init__(self, settings: Settings, record: Callable[[], Any]) -> None:
        app = Celery("beat", broker="memory://", set_as_current=False)
        app.conf.beat_schedule = beat_schedule(settings)
        self.sent: list[tuple[float, str]] = []
        self.refuses = False
        self._record = record
        super().__init__(app)

    @property
    def producer(self) -> None:
        """No broker."""

    def apply_async(self, entry: Any, **_: Any) -> None:
        if self.refuses:
            raise SchedulingError
        self.sent.append((time.monotonic(), entry.name))

    def run_due(self) -> list[str]:
        """Let it tick until it would pause for longer than it spreads runs; return what it sent."""
        del self.sent[:]
        while (delay := self.tick()) <= scheduler.SPREAD:
            time.sleep(max(0, delay))
        return [name for _, name in self.sent]


@pytest.fixture
def start(lab: Lab) -> Callable[..., Beat]:
    """Start a beat with an interval of a day for each sweep, or other settings."""

    def start(record: Callable[[], Any] | None = None, **settings: Any) -> Beat:
        days = dict.fromkeys(("clean_channels_every", "clean_backlog_every", "clean_clients_every"), DAY)
        keys = Keys("chat", 16)
        return Beat(Settings(**days | settings), record or (lambda: (lab.redis, keys)))

    return start


def scheduled(lab: Lab, ages: dict[str, float]) -> None:
    """Record when runs were last scheduled, so many seconds ago."""
    for entry, age in ages.items():
        lab.redis.hset("chat:runs", f"{entry}:scheduled", f"{int((time.time() - age) * 1000)} ")


def test_an_interval_longer_than_beat_lives_ends_in_a_later_beat(lab: Lab, start: Callable[..., Beat]) -> None:
    scheduled(lab, {ENTRIES[0]: DAY + 60, ENTRIES[1]: DAY - 60, ENTRIES[2]: 3 * DAY})
    assert sorted(start().run_due()) == sorted([ENTRIES[0], ENTRIES[2]])
    assert start().run_due() == []


def test_a_first_beat_runs_each_interval_at_once_and_the_next_one_knows(start: Callable[..., Beat]) -> None:
    assert sorted(start().run_due()) == sorted(ENTRIES)
    assert start().run_due() == []


def test_each_part_of_a_run_has_its_own_time(lab: Lab, start: Callable[..., Beat]) -> None:
    parts = [f"clean_{what} {part}/2" for what in ("channels", "backlog", "clients") for part in (1, 2)]
    scheduled(lab, dict.fromkeys(parts, 10) | {"clean_backlog 2/2": 2 * DAY})
    assert start(clean_parts=2).run_due() == ["clean_backlog 2/2"]


def test_what_is_overdue_at_the_start_is_spread_a_little(lab: Lab, start: Callable[..., Beat]) -> None:
    scheduled(lab, dict.fromkeys(ENTRIES, 2 * DAY))
    beat = start()
    assert len(beat.run_due()) == 3
    moments = [moment for moment, _ in beat.sent]
    assert min(after - before for before, after in pairwise(moments)) > scheduler.SPREAD / 6
    assert moments[-1] - moments[0] < 2 * scheduler.SPREAD


def test_a_cron_entry_catches_up_once(lab: Lab, start: Callable[..., Beat]) -> None:
    hour = (time.gmtime().tm_hour + 12) % 24  # not now
    cron = {"clean_channels_every": f"0 {hour} * * *"}
    scheduled(lab, dict.fromkeys(ENTRIES, 60) | {ENTRIES[0]: 5 * DAY})
    beat = start(**cron)
    assert beat.run_due() == [ENTRIES[0]]
    assert beat.run_due() == []
    assert start(**cron).run_due() == []


def test_a_cron_entry_that_no_beat_has_seen_waits_for_its_time_and_is_caught_up_if_that_is_missed(
    lab: Lab, start: Callable[..., Beat]
) -> None:
    hour = (time.gmtime().tm_hour + 12) % 24
    cron = {"clean_channels_every": f"0 {hour} * * *"}
    assert ENTRIES[0] not in start(**cron).run_due()
    seen_ms = int(lab.redis.hget("chat:runs", f"{ENTRIES[0]}:scheduled"))
    lab.redis.hset("chat:runs", f"{ENTRIES[0]}:scheduled", f"{seen_ms - DAY * 1000} ")
    assert start(**cron).run_due() == [ENTRIES[0]]


def test_a_recorded_time_a_little_ahead_counts_as_now(lab: Lab, start: Callable[..., Beat]) -> None:
    scheduled(lab, dict.fromkeys(ENTRIES, -30))
    beat = start()
    assert beat.run_due() == []
    assert all(entry.is_due().next <= DAY for entry in beat.schedule.values())


def test_a_recorded_time_of_a_clock_far_ahead_stops_no_entry(lab: Lab, start: Callable[..., Beat]) -> None:
    scheduled(lab, dict.fromkeys(ENTRIES, -14 * DAY))
    assert sorted(start().run_due()) == sorted(ENTRIES)
    scheduled(lab, {ENTRIES[0]: -14 * DAY})
    hour = (time.gmtime().tm_hour + 12) % 24
    assert start(clean_channels_every=f"0 {hour} * * *").run_due() == []
    assert int(lab.redis.hget("chat:runs", f"{ENTRIES[0]}:scheduled")) <= (time.time() + 60) * 1000


@pytest.mark.parametrize("noted", ["yesterday", "9" * 5000, "9" * 400, "-1", "\xb2"])
def test_a_damaged_record_counts_as_none(lab: Lab, start: Callable[..., Beat], noted: str) -> None:
    scheduled(lab, dict.fromkeys(ENTRIES, 10))
    lab.redis.hset("chat:runs", f"{ENTRIES[1]}:scheduled", noted)
    assert start().run_due() == [ENTRIES[1]]


def test_a_run_by_hand_is_not_counted(lab: Lab, start: Callable[..., Beat]) -> None:
    scheduled(lab, dict.fromkeys(ENTRIES, 2 * DAY))
    clean_channels(lab.redis)
    assert ENTRIES[0] in start().run_due()


def test_while_redis_is_away_beat_goes_on_with_what_it_has_and_reads_the_record_later(
    lab: Lab, start: Callable[..., Beat], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "RETRY", 0.01)
    away = connect(f"redis://127.0.0.1:{free_port()}/0", retries=0)
    keys, places = Keys("chat", 16), [away]
    beat = start(lambda: (places[-1], keys), clean_backlog_every=0.2)
    eventually(lambda: (beat.tick(), len(beat.sent) >= 3)[1])
    assert {name for _, name in beat.sent} == {ENTRIES[1]}
    scheduled(lab, {ENTRIES[0]: 2 * DAY, ENTRIES[1]: DAY, ENTRIES[2]: 10})
    places.append(lab.redis)
    eventually(lambda: (beat.tick(), ENTRIES[0] in {name for _, name in beat.sent})[1])
    assert ENTRIES[2] not in {name for _, name in beat.sent}
    away.close()


def test_a_full_redis_still_remembers_what_was_scheduled(lab: Lab, start: Callable[..., Beat]) -> None:
    lab.redis.config_set("maxmemory", "1")
    try:
        assert len(start().run_due()) == 3
        assert start().run_due() == []
    finally:
        lab.redis.config_set("maxmemory", "0")


def test_a_run_that_could_not_be_sent_is_sent_when_the_broker_is_back_and_not_an_interval_later(
    lab: Lab, start: Callable[..., Beat], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "RETRY", 3 * scheduler.SPREAD)
    scheduled(lab, dict.fromkeys(ENTRIES, 10) | {ENTRIES[0]: 2 * DAY})
    beat = start()
    beat.refuses = True
    assert beat.run_due() == []
    beat.refuses = False
    monkeypatch.setattr(scheduler, "SPREAD", 3 * scheduler.SPREAD)
    assert beat.run_due() == [ENTRIES[0]]
    assert start().run_due() == []


def test_two_beats_do_not_disturb_each_other(lab: Lab, start: Callable[..., Beat]) -> None:
    scheduled(lab, dict.fromkeys(ENTRIES, 2 * DAY))
    first, second = start(), start()
    assert len(first.run_due()) == 3
    assert second.run_due() == []
    note_scheduled(lab.redis, Keys("chat", 16), ENTRIES[0])
    assert first.run_due() == second.run_due() == []


@pytest.mark.slow
@pytest.mark.parametrize("engine", BINARIES)
def test_a_beat_that_is_killed_and_started_anew_runs_what_is_overdue_within_seconds(
    engine: str, tmp_path: Path
) -> None:
    server = Server(engine, tmp_path).start()
    environment = {"REDIS_URL": server.url} | {
        f"CHAT_CLEAN_{what}_EVERY": str(DAY) for what in ("CHANNELS", "BACKLOG", "CLIENTS")
    }
    lab, tickers = Lab(server.client()), []
    try:
        for waiting in (3, 4):
            tickers.append(beat(tmp_path, environment, f"beat{waiting}").start())
            eventually(lambda waiting=waiting: lab.redis.llen("chat:celery:pollchat") == waiting)
            eventually(lambda: "Sending due task clean_channels 1/1" in tickers[-1].output)  # logged after it is queued
            tickers[-1].stop()
            scheduled(lab, dict.fromkeys(ENTRIES, 60) | {ENTRIES[0]: DAY + 1})
        assert "Sending due task clean_channels 1/1" in tickers[1].output
        assert "Sending due task clean_clients 1/1" not in tickers[1].output
    finally:
        for ticker in tickers:
            ticker.stop()
        lab.redis.close()
        server.stop()
