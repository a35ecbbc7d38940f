"""TLS: what works over it, and what each program says when a certificate does not fit."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from certificates import HOST, Authority, TlsServer, has_tls, tls_port, with_query
from clusters import PRIMARIES, Cluster
from lab import Lab, bodies
from redis.exceptions import ConnectionError as RedisConnectionError
from sentinels import SERVICE, Sentinel
from servers import BINARIES, beat, eventually, every, run, worker

from chat import AsyncChat, Chat, InvalidArgumentError
from chat.store.connect import connect
from chat.store.explain import describe_outage
from chat.store.urls import parse_place
from tasks.schedule import celery_url, tls_options

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers import Server

LAST_YEAR = datetime.now(UTC) - timedelta(365)
COMMANDS = [["chat", "send", "lobby", "hi"], ["celery", "-A", "tasks", "stats"]]
UNFIT = {
    "no authority": "name the certificate's authority in the URL, ?ssl_ca_certs=/path/ca.pem",
    "another authority": "name the certificate's authority in the URL, ?ssl_ca_certs=/path/ca.pem",
    "another host": "put a name that the certificate has into the URL",
    "expired": "renew the server's certificate, or correct the clock here",
    "no certificate": "start it, or name a certificate that it accepts, "
    "?ssl_certfile=/path/client.pem&ssl_keyfile=/path/client.key",
    "another authority's certificate": "start it, or name a certificate that it accepts, "
    "?ssl_certfile=/path/client.pem&ssl_keyfile=/path/client.key",
    "no file": "correct the PEM files in the URL: ssl_ca_certs, ssl_certfile with its ssl_keyfile",
    "no key": "correct the PEM files in the URL: ssl_ca_certs, ssl_certfile with its ssl_keyfile",
}


@pytest.fixture(scope="module", params=BINARIES)
def engine(request: pytest.FixtureRequest) -> str:
    if not has_tls(request.param):
        pytest.skip(f"this {request.param} was built without TLS")
    return str(request.param)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other"))


@pytest.fixture(scope="module")
def urls(
    engine: str, authority: Authority, other: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """URLs of four servers: good ones, and those that do not fit."""

    def started(**options: Any) -> Server:
        return TlsServer(engine, tmp_path_factory.mktemp("server"), authority.options(**options)).start()

    servers = [
        started(**options) for options in ({}, {"name": "redis.internal"}, {"mutual": True}, {"ends": LAST_YEAR})
    ]
    one, elsewhere, mutual, expired = servers
    trusted, issued = authority.trusted(), authority.issue("client")
    yield {
        "server": with_query(one.url, trusted),
        "mutual": with_query(mutual.url, trusted | issued),
        "no host check": with_query(elsewhere.url, trusted | {"ssl_check_hostname": "false"}),
        "unverified": with_query(one.url, {"ssl_cert_reqs": "none"}),
        "no authority": one.url,
        "another authority": with_query(one.url, other.trusted()),
        "another host": with_query(elsewhere.url, trusted),
        "expired": with_query(expired.url, trusted),
        "no certificate": with_query(mutual.url, trusted),
        "another authority's certificate": with_query(mutual.url, trusted | other.issue("client")),
        "no file": with_query(one.url, {"ssl_ca_certs": "/nowhere/ca.pem"}),
        "no key": with_query(mutual.url, trusted | {"ssl_certfile": issued["ssl_certfile"]}),
    }
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def cluster(engine: str, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a cluster whose nodes also talk with each other over TLS."""
    cluster = Cluster(engine, tmp_path_factory.mktemp("cluster"))
    for node in cluster.nodes:
        node.options |= authority.options(mutual=True) | {"tls-cluster": "yes"}
    with cluster:
        hosts = ",".join(map(tls_port, cluster.nodes[:PRIMARIES]))
        yield with_query(f"rediss+cluster://{hosts}", authority.trusted(**authority.issue("client")))


@pytest.fixture(scope="module")
def sentinel(engine: str, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a primary and the sentinel that watches it, both over TLS."""
    server = TlsServer(engine, tmp_path_factory.mktemp("primary"), authority.options(mutual=True)).start()
    watch = {f"sentinel monitor {SERVICE}": f"{HOST} {server.options['tls-port']} 1"}
    guard = Sentinel(engine, tmp_path_factory.mktemp("sentinel"), authority.options(mutual=True) | watch).start()
    url = f"rediss+sentinel://{tls_port(guard)}/{SERVICE}/0"
    yield with_query(url, authority.trusted(**authority.issue("client")))
    guard.stop()
    server.stop()


@pytest.fixture(params=["server", "mutual", "no host check", "unverified", "cluster", "sentinel"])
def url(request: pytest.FixtureRequest, urls: dict[str, str]) -> str:
    return urls[request.param] if request.param in urls else str(request.getfixturevalue(request.param))


def test_a_chat_sends_and_a_waiting_check_hears_it(url: str) -> None:
    heard: list[Any] = []
    with Chat.from_url(url) as chat:
        chat.check_messages("bob", "lobby")
        waiting = threading.Thread(target=lambda: heard.extend(bodies(chat.check_messages("bob", "lobby", wait=30))))
        waiting.start()
        eventually(lambda: chat._transport._wake_ups._subscriptions)
        chat.send_message("lobby", "hi")
        waiting.join(20)
    assert heard == ["hi"]


def test_an_async_chat_sends_and_a_waiting_check_hears_it(url: str) -> None:
    async def talk() -> list[Any]:
        async with AsyncChat.from_url(url) as chat:
            await chat.check_messages("ann", "lounge")
            waiting = asyncio.create_task(chat.check_messages("ann", "lounge", wait=30))
            await asyncio.sleep(0)  # the wait begins
            await chat.send_message("lounge", "hi")
            return bodies(await asyncio.wait_for(waiting, 20))

    assert asyncio.run(talk()) == ["hi"]


@pytest.mark.parametrize("case", UNFIT)
@pytest.mark.parametrize("words", COMMANDS, ids=["chat", "stats"])
def test_a_certificate_that_does_not_fit_is_told_in_one_line(words: list[str], case: str, urls: dict[str, str]) -> None:
    done = run("-m", *words, REDIS_URL=urls[case])
    assert (done.returncode, done.stdout) == (3 if words[0] == "chat" else 1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{words[0].replace('celery', 'stats')}: no Redis at rediss://{HOST}:")
    assert line.endswith(f": {UNFIT[case]}")


@pytest.mark.parametrize("case", ["another authority", "no certificate"])
def test_a_certificate_that_does_not_fit_a_cluster_is_told(case: str, cluster: str, other: Authority) -> None:
    wrong = {"another authority": with_query(cluster.partition("?")[0], other.trusted())}
    url = wrong.get(case, cluster.partition("&")[0])
    with pytest.raises(RedisConnectionError) as caught:
        Chat.from_url(url)
    assert describe_outage(caught.value, url).endswith(f"; {UNFIT[case]}")


@pytest.mark.parametrize("case", ["another authority", "another host", "no certificate"])
def test_a_certificate_that_does_not_fit_sentinels_is_thought_of(case: str, sentinel: str, other: Authority) -> None:
    """redis-py says of a sentinel only that it could not be asked."""
    wrong = {
        "another authority": with_query(sentinel.partition("?")[0], other.trusted()),
        "another host": sentinel.replace(HOST, "localhost"),
    }
    url = wrong.get(case, sentinel.partition("&")[0])
    with pytest.raises(RedisConnectionError) as caught, connect(url, retries=0) as client:
        client.ping()
    assert describe_outage(caught.value, url).endswith(
        "; name their ports for TLS, and correct ssl_ca_certs, ssl_certfile and ssl_keyfile, which are for them too"
    )


@pytest.mark.slow
def test_a_worker_says_in_one_line_what_to_do_and_waits(urls: dict[str, str], tmp_path: Path) -> None:
    programs = {}
    for case in ("another authority", "another host", "no certificate"):
        folder = tmp_path / case
        folder.mkdir()
        programs[case] = worker(folder, {"REDIS_URL": urls[case]}).start()
    try:
        for case, program in programs.items():
            eventually(lambda case=case, program=program: UNFIT[case] in program.output)
    finally:
        ended = [program.stop() for program in programs.values()]
    assert ended == [0, 0, 0]
    for case, program in programs.items():
        (line,) = [line for line in program.output.splitlines() if "Cannot connect" in line]
        assert f": {UNFIT[case]}. Trying again in 2.00 seconds" in line
        assert "Traceback" not in program.output


@pytest.mark.slow
@pytest.mark.parametrize("case", ["mutual", "no host check"])
def test_worker_and_beat_sweep_and_a_call_has_its_result(case: str, urls: dict[str, str], tmp_path: Path) -> None:
    environment = {"REDIS_URL": urls[case]}
    with Chat.from_url(urls[case]) as chat:
        lab = Lab(chat._transport.client)
        lab.send("old", "x")
        lab.idle("old", 901)
        programs = [worker(tmp_path, environment).start(), beat(tmp_path, environment | every(0.5)).start()]
        try:
            eventually(lambda: not lab.traces("old"))
            code = "import tasks; print(tasks.app.send_task('tasks.clean_clients').get(timeout=60)['clients'])"
            done = run("-c", code, **environment)
        finally:
            ended = [program.stop() for program in programs]
        lab.chat.close()
    assert (done.stderr, done.stdout, ended) == ("", "0\n", [0, 0])


def test_celery_gets_the_options_of_tls_apart_from_the_url() -> None:
    url = "rediss://:pw@host:1/2?ssl_ca_certs=/my%20ca.pem&ssl_check_hostname=false&ssl_password=secret"
    assert celery_url(url) == "rediss://:pw@host:1/2"
    assert tls_options(url) == {
        "ssl_cert_reqs": "required",
        "ssl_ca_certs": "/my ca.pem",
        "ssl_check_hostname": False,
        "ssl_password": "secret",
    }
    assert celery_url("rediss://host?") == "rediss://host"
    assert tls_options("rediss://host?ssl_cert_reqs=none") == {"ssl_cert_reqs": "none"}
    assert tls_options("redis://host") == tls_options("unix:///path") == {}


def test_sentinels_are_asked_over_tls_with_the_same_certificates() -> None:
    place = parse_place("rediss+sentinel://me:pw@a/chat?sentinel_password=s&ssl_ca_certs=/ca.pem")
    assert place.sentinel_options == {"password": "s", "ssl": True, "ssl_ca_certs": "/ca.pem"}
    assert parse_place("redis+sentinel://a/chat").sentinel_options == {}


@pytest.mark.parametrize("url", ["rediss://host/0", "rediss+cluster://host", "rediss+sentinel://host/chat"])
@pytest.mark.parametrize("query", ["ssl_ca_cert=/ca.pem", "ssl_cert_reqs=maybe", "ssl_cert_reqs=CERT_NONE"])
def test_a_parameter_that_is_none_of_tls_is_refused(url: str, query: str) -> None:
    with pytest.raises(InvalidArgumentError, match="; only rediss takes redis-py's ssl_ parameters, ssl_cert_reqs="):
        parse_place(f"{url}?{query}")
