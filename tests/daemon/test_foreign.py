"""The three tasks in a Celery app of somebody else's: real processes of that app, and none of ours."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from lab import Lab, bodies
from redis import Redis
from servers import ROOT, Program, Server, eventually, every, run

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.any_engine]

# Their own names and their own taste; what is ours is as tasks/README.md says.
SHOP = """
from celery import Celery

app = Celery("shop", broker="{url}", backend="{url}")
app.conf.update(
    task_default_queue="shop-work",
    task_serializer="{serializer}",
    result_serializer="{serializer}",
    accept_content=["json", "{serializer}"],
    broker_transport_options={{"global_keyprefix": "shop:"}},
    beat_schedule={{"restock": {{"task": "shop.restock", "schedule": 0.5}}}},
)

@app.task(name="shop.restock")
def restock():
    from redis import Redis
    return Redis.from_url("{url}").incr("restocked")
"""


def ours() -> str:
    """Return what the page tells to add, in the names of a checkout."""
    (block,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", (ROOT / "tasks/README.md").read_text(), re.DOTALL)
        if "beat_schedule.update" in block
    ]
    return str(block).replace("pollchat.", "")


class Shop:
    """A foreign app, and hands to run it."""

    def __init__(self, server: Server, folder: Path, lines: str, serializer: str = "json") -> None:
        self.folder = folder
        self.environment = {"REDIS_URL": server.url, "CHAT_PREFIX": "day", "PYTHONPATH": f"{ROOT}:{folder}"}
        self.environment["C_FORCE_ROOT"] = "1"  # else Celery refuses pickle to root
        self.environment |= every(0.5)
        (folder / "shop.py").write_text(SHOP.format(url=server.url, serializer=serializer) + lines)
        self.lab = Lab(Redis(port=server.port), prefix="day")

    def start(self, name: str, *arguments: str) -> Program:
        words = ["-m", "celery", "-A", "shop", name, "-l", "INFO", *arguments]
        return Program(name, words, self.environment, self.folder).start()

    def celery(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run("-m", "celery", "-A", "shop", *arguments, folder=self.folder, **self.environment)


@pytest.fixture(params=["json", "pickle"])
def shop(request: pytest.FixtureRequest, server: Server, redis: Redis, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(server, tmp_path, ours(), request.param)
    processes = [shop.start("worker", "-c", "1"), shop.start("beat", "--pidfile=", "-s", str(tmp_path / "schedule"))]
    try:
        eventually(lambda: "ready." in processes[0].output)
        yield shop
    finally:
        for process in reversed(processes):
            process.stop()
        shop.lab.redis.close()
        redis.flushdb()


def test_its_beat_and_worker_clean_the_chat_and_go_on_with_their_own(shop: Shop) -> None:
    lab = shop.lab
    lab.check("bob", "lobby")
    lab.send_all("lobby", 120)
    lab.send("old", "hi")
    lab.idle("old", 901)
    lab.check("eve", "lobby")
    lab.away("eve", "lobby", 301)
    eventually(lambda: lab.redis.llen(lab.key("lobby", "log:")) == 100)
    eventually(lambda: not lab.traces("old"))
    eventually(lambda: lab.chat.count_clients("lobby") == 1)
    check = lab.check("bob", "lobby")
    assert (check.missed, len(bodies(check))) == (20, 100)
    before = int(lab.redis.get("restocked") or 0)
    eventually(lambda: int(lab.redis.get("restocked") or 0) > before)
    assert lab.redis.keys("day:celery:*") == []  # its broker, its queues

    lab.send_all("lobby", 5)
    called = shop.celery("call", "tasks.clean_backlog", "--kwargs", '{"backlog": 2}')
    assert called.returncode == 0, called.stderr
    eventually(lambda: lab.redis.llen(lab.key("lobby", "log:")) <= 2)

    cleaned = shop.celery("clean", "backlog", "--backlog", "1", "--json")
    assert (cleaned.returncode, json.loads(cleaned.stdout)["messages"]) == (0, 1), cleaned.stderr
    assert shop.celery("clean", "all", "--now").returncode in {0, 4}  # or beat's run is at it
    refused = shop.celery("clean", "backlog", "--backlog", "-1")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


def test_its_configuration_stays_its_own(server: Server, tmp_path: Path) -> None:
    shop = Shop(server, tmp_path, ours())
    program = (
        "import celery, shop, tasks.periodic\n"
        "app = shop.app\n"
        "assert celery.current_app.main == 'shop', celery.current_app.main\n"
        "assert app.conf.task_default_queue == 'shop-work'\n"
        "assert app.conf.task_acks_late is False\n"
        "assert sorted(app.conf.beat_schedule) == ['clean_backlog 1/1', 'clean_channels 1/1', 'clean_clients 1/1',"
        " 'restock']\n"
        "assert tasks.periodic.clean_backlog.app.main == 'shop'\n"
    )
    done = run("-c", program, folder=tmp_path, **shop.environment)
    assert (done.returncode, done.stderr) == (0, "")
