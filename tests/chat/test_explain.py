"""A URL that does not fit its server is told so in one line, by the exception and by the command."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from typing import TYPE_CHECKING

import pytest
from clusters import Cluster, ask
from redis.exceptions import AuthenticationError, MovedError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sentinels import Sentinel
from servers import Server, free_port, run

from chat import AsyncChat, Chat
from chat.store.connect import connect, connect_async
from chat.store.explain import describe_outage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = "127.0.0.1"
SECRET = "pa55"  # noqa: S105  of a server of the test's own


@pytest.fixture(scope="module")
def ports(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where a plain server is, one with a password, a node that is in no cluster yet, and a sentinel."""

    def start(kind: type[Server], **options: str) -> Server:
        one = kind(server.engine, tmp_path_factory.mktemp("server"), options)
        started.append(one)
        return one.start()

    started: list[Server] = []
    try:
        with_password = start(Server)
        ask(with_password, "CONFIG", "SET", "requirepass", SECRET)
        new = start(Server, **{"cluster-enabled": "yes", "cluster-port": str(free_port())})
        sentinel = start(Sentinel, **{"sentinel monitor chat": f"{HOST} {server.port} 1"})
        found = {"plain": server, "secret": with_password, "new": new, "sentinel": sentinel}
        yield {name: f"{HOST}:{one.port}" for name, one in found.items()}
    finally:
        for one in started:
            one.stop()


CLUSTER_URL = "its URL is redis+cluster://host:port,host:port"
ASKED = "Redis asks for a password: put it into the URL, redis://:password@host or redis://user:password@host"
REFUSED = (
    "Redis refuses the user or the password: correct them in the URL, "
    "redis://:password@host or redis://user:password@host"
)
NO_SENTINEL = "this is a Redis server, no sentinel: its URL is redis://host:port/db"
NO_NODE = "this is no node of a cluster: its URL is redis://host:port/db"
UNFIT: list[tuple[str, type[RedisError], str]] = [
    ("redis://{secret}/0", AuthenticationError, ASKED),
    ("redis://:wrong@{secret}/0", AuthenticationError, REFUSED),
    ("redis://pa55@{secret}/0", AuthenticationError, REFUSED),
    ("redis+cluster://{secret}", AuthenticationError, ASKED),
    ("redis+cluster://:wrong@{secret}", AuthenticationError, REFUSED),
    (
        "redis+sentinel://{secret}/chat/0",
        RedisConnectionError,
        "the sentinels ask for another password: put it into the URL, ?sentinel_password=...",
    ),
    ("redis+sentinel://{plain}/chat/0", ResponseError, NO_SENTINEL),
    (
        "redis+sentinel://{sentinel}/other/0",
        RedisConnectionError,
        "the sentinels name no primary for 'other': it is down, or the URL should end in another name, /service/db",
    ),
    (
        "redis+sentinel://127.0.0.1:1/chat/0",
        RedisConnectionError,
        "no sentinel can be asked for 'chat' (ConnectionError): start them, or put their hosts and ports into the URL",
    ),
    (
        "redis://{sentinel}/0",
        ResponseError,
        "this is a sentinel, no Redis server: the URL of what it watches is redis+sentinel://host:port/service/db",
    ),
    ("redis+cluster://{plain}", RedisConnectionError, NO_NODE),
    ("redis+cluster://{sentinel}", RedisConnectionError, NO_NODE),
    ("redis://{new}/0", ResponseError, f"this is a node of a cluster: {CLUSTER_URL} (Hash slot not served)"),
    (
        "redis://{plain}/99",
        ResponseError,
        "Redis has no database of that number: end the URL in another one, /0 say",
    ),
]


def check_sync(url: str) -> None:
    with Chat(connect(url, retries=0)) as chat:
        chat.check_messages("bob", "lobby")


async def check_async(url: str) -> None:
    async with AsyncChat(connect_async(url, retries=0)) as chat:
        await chat.check_messages("bob", "lobby")


check = {"sync": check_sync, "async": lambda url: asyncio.run(check_async(url))}


@pytest.mark.parametrize("face", check)
@pytest.mark.parametrize(("url", "kind", "says"), UNFIT, ids=[url for url, _, _ in UNFIT])
def test_a_url_that_does_not_fit_is_told_so(
    ports: dict[str, str], url: str, kind: type[RedisError], says: str, face: str
) -> None:
    url = url.format_map(ports)

    with pytest.raises(kind) as caught:
        check[face](url)
    assert str(caught.value) == says


def test_a_cluster_that_is_not_made_yet_is_told_so(ports: dict[str, str]) -> None:
    with pytest.raises(RedisConnectionError) as caught:
        check_sync(f"redis+cluster://{ports['new']}")
    assert str(caught.value) == "the cluster has no slots yet: create it, or wait until that is done"


@pytest.mark.parametrize("face", check)
def test_a_url_of_one_node_of_a_cluster_is_told_so(server: Server, tmp_path: Path, face: str) -> None:
    with Cluster(server.engine, tmp_path) as cluster, pytest.raises(MovedError) as caught:  # noqa: PT012
        for node in cluster.nodes:  # one of them has the slot of the first key that is asked for
            check[face](node.url)
    assert str(caught.value).startswith(f"this is a node of a cluster: {CLUSTER_URL} (")


@pytest.mark.parametrize(
    ("url", "code", "says"),
    [
        ("redis://{secret}/0", 3, f"redis://{{secret}}/0: {ASKED}"),
        ("redis://me:wrong@{secret}/0", 3, f"redis://...@{{secret}}/0: {REFUSED}"),
        ("redis+sentinel://{plain}/chat", 4, NO_SENTINEL),
        ("redis+cluster://{plain}", 3, f"redis+cluster://{{plain}}: {NO_NODE}"),
    ],
)
def test_the_command_says_it_in_one_line(ports: dict[str, str], url: str, code: int, says: str) -> None:
    done = run("-m", "chat", "check", "bob", "lobby", REDIS_URL=url.format_map(ports))
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"chat: {says.format_map(ports)}\n")


def test_a_port_without_tls_is_thought_of(ports: dict[str, str]) -> None:
    url = f"rediss://{ports['plain']}/0"
    with pytest.raises(RedisTimeoutError) as caught, connect(url, retries=0, timeout=0.2) as client:
        client.ping()
    assert describe_outage(caught.value, url) == (
        f"no Redis at {url} (Timeout connecting to server): start it, or begin the URL with redis if it has no TLS"
    )


def test_an_unknown_certificate_is_told_where_its_authority_is_named() -> None:
    error = RedisConnectionError("Error 1 connecting to h:1. [SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate.")
    told = describe_outage(error, "rediss://:secret@h:1/0")
    assert told.startswith(
        "no Redis at rediss://...@h:1/0 (Error 1 connecting to h:1. [SSL: CERTIFICATE_VERIFY_FAILED]"
    )
    assert told.endswith("): name the certificate's authority in the URL, ?ssl_ca_certs=/path/ca.pem")


def test_a_cluster_without_tls_is_thought_of() -> None:
    with socket.create_server((HOST, 0)) as listener:  # accepts, and says nothing to a TLS handshake
        where = f"{HOST}:{listener.getsockname()[1]}"
        with pytest.raises(RedisConnectionError) as caught:
            connect(f"rediss+cluster://{where}", retries=0, timeout=0.2)
        assert describe_outage(caught.value, f"rediss+cluster://{where}") == (
            f"rediss+cluster://{where}: no node of the cluster answers (Timeout connecting to server): start them, or "
            "put their hosts and ports into the URL; start it, or begin the URL with redis if it has no TLS"
        )


@pytest.mark.parametrize("reset", [True, False])
def test_a_port_with_tls_is_thought_of(*, reset: bool) -> None:
    """A server that expects TLS ends a connection at the first byte that is none."""
    with socket.create_server((HOST, 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            connection.recv(1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", reset, 0))
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"redis://{HOST}:{listener.getsockname()[1]}/0"
        with pytest.raises(RedisConnectionError) as caught, connect(url, retries=0) as client:
            client.ping()
        thread.join()
    assert describe_outage(caught.value, url).endswith("): start it, or begin the URL with rediss if it expects TLS")
