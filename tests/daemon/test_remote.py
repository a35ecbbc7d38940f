"""How the clean command follows a sweep in a worker: the worker's states are stored by the test."""

from __future__ import annotations

import dataclasses
import re
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
import pytest
from celery import Celery
from celery.bin.celery import celery
from celery.exceptions import NotRegistered, TaskRevokedError
from servers import Server, eventually

from tasks.cleaning import Report
from tasks.commands import remote, task_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery.result import AsyncResult
    from lab import Lab

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # Celery's


class Task:
    """A sweep as a command follows it, whose states the test stores in the worker's place."""

    def __init__(self, server: Server, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lab, self.app = lab, Celery("tasks", broker=server.url, backend=server.url, set_as_current=False)
        self.replies: list[bool] = []
        self.sent = self.app.AsyncResult("1" * 36)
        self.backend = self.app.backend  # that of this thread
        self.backend.result_consumer.consume_from(self.sent.id)  # as sending a task does
        monkeypatch.setattr(self.app.tasks["tasks.clean_backlog"], "apply_async", self.send)
        monkeypatch.setattr(remote, "answers", lambda _: True)
        monkeypatch.setattr(task_state, "chat_redis", lambda: (lab.redis, lab.settings))
        monkeypatch.setattr(remote, "is_alive", lambda *_: self.replies.pop(0) if self.replies else True)
        for name, seconds in {"POLL": 0.02, "NO_NEWS_AFTER": 0.01, "PING_AFTER": 0.05, "LONGEST": 5}.items():
            monkeypatch.setattr(remote if hasattr(remote, name) else task_state, name, seconds)

    def send(self, **_: Any) -> AsyncResult:
        self.sent.backend = self.backend  # the run before, if there was one, gave it up
        return self.sent

    def store(self, state: str, result: Any) -> None:
        self.app.backend.store_result(self.sent.id, result, state)

    def began(self, pid: int = 7) -> None:
        self.store("STARTED", {"pid": pid, "hostname": "celery@there"})

    def came(self, done: int) -> None:
        self.store("PROGRESS", {"done": done, "total": 4000, "hostname": "celery@there"})

    def removes(self, count: int) -> None:
        self.lab.redis.hincrby("chat:{0}:meta", "removed", count)

    def follow(self, *steps: Callable[[], object]) -> Report:
        """Follow it while the steps are taken, each after the one before was heard of."""
        result: list[Any] = []

        def listen() -> None:
            try:
                result.append(remote.run_in_worker(self.app, "clean_backlog", {}, self))  # type: ignore[arg-type]
            except Exception as error:  # noqa: BLE001  whatever it was, it is the test's
                result.append(error)

        self.shown: list[object] = []
        listener = threading.Thread(target=listen)
        listener.start()
        try:
            for step in steps:
                step()
        finally:
            listener.join(30)
        if isinstance(result[0], Exception):
            raise result[0]
        assert isinstance(result[0], Report)
        return result[0]

    def __call__(self, done: int, total: int) -> None:
        self.shown.append((done, total))

    def quiet(self, seconds: float) -> None:
        self.shown.append(seconds)

    def until(self, *shown: object) -> Callable[[], object]:
        return lambda: eventually(lambda: set(shown) <= set(self.shown))


@pytest.fixture
def task(server: Server, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:
    task = Task(server, lab, monkeypatch)
    yield task
    remote.stop_waiting(task.send())  # of a test that sent nothing, too
    task.app.close()


REPORT = dataclasses.asdict(Report(sweep="clean_backlog", messages=7))


def test_the_report_of_a_worker_comes_home_with_its_progress(task: Task) -> None:
    report = task.follow(
        task.began, lambda: task.came(10), task.until((10, 4000)), lambda: task.came(20), task.until((20, 4000)),
        lambda: task.store("SUCCESS", REPORT),
    )  # fmt: skip
    assert report == Report(sweep="clean_backlog", messages=7)


@pytest.mark.parametrize("ends", ["SUCCESS", "REVOKED", "FAILURE"])
def test_however_a_sweep_ends_its_result_is_not_left_to_be_given_up_when_the_process_exits(
    task: Task, ends: str
) -> None:
    result = {"SUCCESS": REPORT, "REVOKED": TaskRevokedError("expired"), "FAILURE": ValueError("no")}[ends]
    with suppress(remote.WorkerError):
        task.follow(lambda: task.store(ends, result))
    assert task.sent.backend is None
    assert not task.app.backend.result_consumer.subscribed_to


def test_a_worker_of_the_version_before_that_does_not_name_itself_is_followed_too(task: Task) -> None:
    def came() -> None:
        task.store("PROGRESS", {"done": 10, "total": 4000})

    with pytest.raises(remote.WorkerError, match=r"^its worker died, at 10 of 4,000 channels"):
        task.follow(came, task.until((10, 4000)), lambda: task.store("REVOKED", TaskRevokedError("expired")))


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("expired", "no worker had time within 60 s, nothing was done: try again, or use --now"),
        ("revoked", r"somebody took it back \(revoked\) before it began, nothing was done"),
    ],
)
def test_a_sweep_that_never_began_did_nothing(task: Task, reason: str, says: str) -> None:
    with pytest.raises(remote.WorkerError, match=f"^{says}$"):
        task.follow(lambda: task.store("REVOKED", TaskRevokedError(reason)))


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("expired", "celery@there died, at 1,000 of 4,000 channels; 91,613 messages were removed meanwhile: run it"),
        ("terminated", r"somebody ended it \(terminated\), at 1,000 of 4,000 channels; 91,613 messages were removed"),
    ],
)
def test_a_sweep_that_was_broken_off_tells_how_far_it_came(task: Task, reason: str, says: str) -> None:
    task.removes(5)
    with pytest.raises(remote.WorkerError, match=f"^{says}"):
        task.follow(
            task.began, lambda: task.came(1000), task.until((1000, 4000)), lambda: task.removes(91_613),
            lambda: task.store("REVOKED", TaskRevokedError(reason)),
        )  # fmt: skip


def test_a_worker_that_does_not_answer_any_more_died(task: Task) -> None:
    task.replies = [True, True, False]
    with pytest.raises(
        remote.WorkerError, match=r"^celery@there died or is cut off, at 1 of 4,000 channels; 3 messages"
    ):
        task.follow(task.began, lambda: task.came(1), task.until((1, 4000)), lambda: task.removes(3))
    assert any(isinstance(shown, float) for shown in task.shown)


def test_a_sweep_that_runs_longer_than_patience_lasts_is_not_called_dead(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "LONGEST", 0.5)
    with pytest.raises(
        remote.WorkerError, match=r"^no report: still running after 0\.5 s, at 1 of 4,000 channels; 0 m"
    ):
        task.follow(task.began, lambda: task.came(1))
    task.store("PENDING", None)
    with pytest.raises(remote.WorkerError, match=r"^no report: no worker took it; see the worker's log, and celery -A"):
        task.follow()


def test_a_report_says_when_it_does_not_count_from_the_beginning(task: Task) -> None:
    report = task.follow(
        task.began, lambda: task.came(1000), task.until((1000, 4000)), lambda: task.removes(5),
        lambda: task.began(pid=8), lambda: task.came(1), task.until((1, 4000)), lambda: task.store("SUCCESS", REPORT),
    )  # fmt: skip
    assert report.messages == 7
    assert report.error == (
        "its process died at 1,000 of 4,000 channels; 5 messages were removed meanwhile, and the run began anew:"
        " this report counts from there"
    )


def test_an_app_without_our_tasks_is_told_what_to_add(task: Task) -> None:
    lost = NotRegistered("tasks.clean_backlog")
    says = 'do not have tasks.clean_backlog: add include=["tasks.periodic"] to it, or use --now'
    with pytest.raises(remote.WorkerError, match=rf"^the workers of this app {re.escape(says)}$"):
        task.follow(lambda: task.store("FAILURE", lost))


def test_hints_name_the_app_at_hand(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "answers", lambda _: False)
    says = r"^no worker answers: start one \(celery -A shop worker\)"
    context = click.Context(celery)
    context.params["app"] = "shop"
    with context, pytest.raises(remote.WorkerError, match=says):
        remote.run_in_worker(task.app, "clean_backlog", {})


def test_an_interrupted_command_says_that_the_sweep_goes_on(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(remote, "_follow", interrupt)
    with pytest.raises(KeyboardInterrupt, match=r"^left alone, it goes on in the worker: celery -A tasks result 111"):
        remote.run_in_worker(task.app, "clean_backlog", {})


def test_a_task_that_fails_tells_how_far_it_came(task: Task) -> None:
    with pytest.raises(remote.WorkerError, match=r"^no report \(KeyError: .*\), at 1 of 4,000 channels; 0 messages"):
        task.follow(task.began, lambda: task.came(1), task.until((1, 4000)), lambda: task.store("FAILURE", KeyError(1)))
