"""Where Redis is: one server, a primary that sentinels name, or a cluster, each by its form of URL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.connection import parse_url

__all__ = ["CLUSTER", "SENTINEL", "SERVER", "Place", "parse_place", "public"]

SERVER, SENTINEL, CLUSTER = "", "sentinel", "cluster"
SENTINEL_PORT, SERVER_PORT = 26379, 6379
SECRETS = re.compile(r"(?<=//).*(?=@)|(?<=sentinel_password=)[^&']*")
OF_SENTINEL = {"sentinel_username": "username", "sentinel_password": "password"}


@dataclass(frozen=True, slots=True)
class Place:
    """What a URL says.

    Attributes:
        form: SERVER, SENTINEL or CLUSTER.
        url: of a server, for redis-py; empty for the others.
        hosts: of sentinels, or of some of a cluster's nodes, with their ports.
        service: the name under which sentinels know the primary.
        options: redis-py's for the servers: ``username``, ``password``, ``db``, ``ssl`` and what belongs to it.
        sentinel_options: redis-py's for the sentinels.
    """

    form: str
    url: str
    hosts: tuple[tuple[str, int], ...]
    service: str
    options: dict[str, Any]
    sentinel_options: dict[str, Any]


def parse_place(url: str) -> Place:
    """Return what a URL says.

    Raises:
        ValueError: it is none of the forms.
    """
    scheme, _, rest = url.partition("://")
    tls, form = scheme.partition("+")[::2]
    if scheme == "unix" or not form:
        return _server(url)
    if tls not in {"redis", "rediss"} or form not in {SENTINEL, CLUSTER}:
        raise ValueError
    parts = urlsplit(f"//{rest}")
    login, _, names = parts.netloc.rpartition("@")
    hosts = tuple(_host(name, SENTINEL_PORT if form == SENTINEL else SERVER_PORT) for name in names.split(","))
    service, _, database = parts.path.strip("/").partition("/")
    if form == CLUSTER:
        service, database = "", parts.path.strip("/")
    if bool(service) != (form == SENTINEL) or not (database or "0").isdecimal() or (form == CLUSTER and database):
        raise ValueError
    query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    of_sentinel = {OF_SENTINEL[name]: query.pop(name) for name in OF_SENTINEL if form == SENTINEL and name in query}
    if any(not (tls == "rediss" and name.startswith("ssl_")) for name in query):
        raise ValueError
    options = parse_url(f"{tls}://{f'{login}@' if login else ''}host/{database or 0}?{urlencode(query)}")
    options = {name: value for name, value in options.items() if name not in {"host", "port", "connection_class"}}
    if form == CLUSTER:
        options.pop("db", None)
    if tls == "rediss":
        options["ssl"] = True
    return Place(form, "", hosts, service, options, of_sentinel)


def public(url: str) -> str:
    """Return a URL without its passwords."""
    return SECRETS.sub("...", url)


def _server(url: str) -> Place:
    parts = urlsplit(url)
    where = parts.path if parts.scheme == "unix" else parts.hostname
    query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    database = query.pop("db", "0") if parts.scheme == "unix" else parts.path.strip("/") or "0"
    if parts.scheme == "rediss":
        query = {name: value for name, value in query.items() if not name.startswith("ssl_")}
    if parts.scheme not in {"redis", "rediss", "unix"} or not where or not database.isdecimal() or query:
        raise ValueError  # redis-py's other options mean nothing to Celery
    parts.port  # noqa: B018  raises for a port that is none
    return Place(SERVER, url, (), "", {}, {})


def _host(name: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{name}")
    if not parts.hostname or parts.netloc != name or "@" in name:
        raise ValueError
    return parts.hostname, port if parts.port is None else parts.port
