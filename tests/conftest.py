from __future__ import annotations

import functools
import inspect
import multiprocessing
import os
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from clusters import Cluster
from lab import Blocking, Lab
from servers import BINARIES, STEERS, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chat.store.nodes import Client

# No setting of this machine steers a test.
for name in [name for name in os.environ if name.startswith(STEERS)]:
    del os.environ[name]
# In the background of a shell, and under nohup, signals are ignored, and what we start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
for ignored in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(ignored, signal.SIG_DFL)

multiprocessing.set_forkserver_preload(["pytest", "redis", "tasks.cleaning"])  # what many senders at once import


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marked = metafunc.definition.get_closest_marker
    if "lab" in metafunc.fixturenames and marked("on_asyncio"):
        metafunc.parametrize("face", ["sync", "async"], indirect=True)
    if "server" not in metafunc.fixturenames:
        return
    needs_one = marked("one_server") or "server" in inspect.signature(metafunc.function).parameters
    kinds = [*BINARIES, *(["cluster"] if marked("on_cluster") and not needs_one else [])]
    if marked("any_engine"):
        kinds = kinds[:1]
    group = [pytest.mark.xdist_group] if marked("xdist_group") else []
    cases = [pytest.param(kind, marks=[mark(kind) for mark in group]) for kind in kinds]  # a group for each kind
    metafunc.parametrize("server", cases, indirect=True, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the long tests begin first, so that no process still has one when the others are done."""
    items.sort(key=lambda item: not item.get_closest_marker("slow"))


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server | Cluster]]:
    """Start a server of each kind once, whatever the order of the tests."""

    @functools.cache
    def start(kind: str) -> Server | Cluster:
        folder = tmp_path_factory.mktemp(kind)
        server = Cluster("valkey", folder) if kind == "cluster" else Server(kind, folder)
        undo.callback(server.stop)
        return server.start()

    with ExitStack() as undo:
        yield start


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, servers: Callable[[str], Server | Cluster]) -> Server | Cluster:
    return servers(request.param)


@pytest.fixture
def redis(server: Server | Cluster) -> Iterator[Client]:
    """A client of an empty server, or cluster, that is ours."""
    with server.client() as client:
        client.flushdb()
        client.script_flush()
        yield client


@pytest.fixture(autouse=True)
def face(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every Lab of the test chat through an AsyncChat, or a Chat."""
    made: list[Blocking] = []
    if getattr(request, "param", "sync") == "async":
        monkeypatch.setattr(Lab, "blocking", made)
    yield
    for chat in made:
        chat.stop()


@pytest.fixture
def lab(redis: Client) -> Iterator[Lab]:
    lab = Lab(redis)
    yield lab
    lab.chat.close()
