from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from lab import Lab
from redis import Redis
from servers import BINARIES, STEERS, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

# No setting of this machine steers a test.
for name in [name for name in os.environ if name.startswith(STEERS)]:
    del os.environ[name]


@pytest.fixture(scope="session", params=BINARIES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(request.param, tmp_path_factory.mktemp(request.param)).start()
    yield server
    server.stop()


@pytest.fixture
def redis(server: Server) -> Iterator[Redis]:
    """A client of an empty server that is ours."""
    with Redis(port=server.port) as client:
        client.flushdb()
        client.script_flush()
        yield client


@pytest.fixture
def lab(redis: Redis) -> Lab:
    return Lab(redis)
