from __future__ import annotations

import inspect
import os
import signal
from typing import TYPE_CHECKING

import pytest
from clusters import Cluster
from lab import Blocking, Lab
from servers import BINARIES, STEERS, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chat.store.connect import Client

# No setting of this machine steers a test.
for name in [name for name in os.environ if name.startswith(STEERS)]:
    del os.environ[name]
# In the background of a shell, and under nohup, signals are ignored, and what we start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
for ignored in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(ignored, signal.SIG_DFL)


# What one server does, three that share the slots do too: the tests of these that only need a client.
ON_CLUSTER = {
    "test_archive",
    "test_check",
    "test_cleaning",
    "test_closing",
    "test_many",
    "test_presence",
    "test_properties",
    "test_recovery",
    "test_restore",
    "test_send",
    "test_stats",
    "test_wait",
}


# What a Chat does, an AsyncChat does too.
ON_ASYNCIO = {"test_check", "test_closing", "test_many", "test_presence", "test_recovery", "test_send", "test_wait"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "lab" in metafunc.fixturenames and metafunc.module.__name__.rpartition(".")[2] in ON_ASYNCIO:
        metafunc.parametrize("face", ["sync", "async"], indirect=True)
    if "server" not in metafunc.fixturenames:
        return
    needs_one = "server" in inspect.signature(metafunc.function).parameters
    needs_one |= metafunc.definition.get_closest_marker("one_server") is not None
    both = metafunc.module.__name__.rpartition(".")[2] in ON_CLUSTER and not needs_one
    metafunc.parametrize("server", [*BINARIES, *(["cluster"] if both else [])], indirect=True, scope="session")


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server | Cluster]:
    folder = tmp_path_factory.mktemp(request.param)
    server = Cluster("valkey", folder) if request.param == "cluster" else Server(request.param, folder)
    server.start()
    yield server
    server.stop()


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
