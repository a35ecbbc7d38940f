"""URLs of one server, of a primary that sentinels name, or of a cluster: parse them, redact their secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from inspect import signature
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.connection import SSLConnection, parse_url

from chat._errors import InvalidArgumentError

__all__ = [
    "CLUSTER",
    "FORMS",
    "SENTINEL",
    "SENTINEL_FORM",
    "SERVER",
    "SERVER_FORM",
    "Place",
    "parse_place",
    "redact_url",
    "url_hint",
]

SERVER, SENTINEL, CLUSTER = "", "sentinel", "cluster"
SENTINEL_PORT, SERVER_PORT = 26379, 6379
SERVER_FORM = "redis://host:port/db, rediss://host:port/db, unix:///path?db=0"
SENTINEL_FORM = "redis+sentinel://host:port,host:port/service/db"
FORMS = f"{SERVER_FORM}, {SENTINEL_FORM} or redis+cluster://host:port,host:port"
OF_SENTINEL = {"sentinel_username": "username", "sentinel_password": "password"}

SCHEME = re.compile(r"\W?[A-Za-z+]+://")
PARAMETER = re.compile(r"\?.*=", re.DOTALL)
# Only these parameters are shown. Anything else may be a misspelt name, or the rest of a password with an &.
NO_SECRETS = {"db", "ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"}
SECRETS = {"sentinel_password", "sentinel_username", "ssl_password"}
OF_TLS = {name for name in signature(SSLConnection).parameters if name.startswith("ssl_")}
CERT_REQS = {"none", "optional", "required"}


@dataclass(frozen=True, slots=True)
class Place:
    """The parts of a URL.

    Attributes:
        form: SERVER, SENTINEL or CLUSTER.
        url: URL of a server, for redis-py; empty for the others.
        hosts: names of sentinels, or of some of a cluster's nodes, with their ports.
        service: the name under which sentinels know the primary.
        options: redis-py's for the servers: ``username``, ``password``, ``db``, ``ssl`` and what belongs to it.
        sentinel_options: redis-py's for the sentinels.
    """

    form: str
    url: str = field(repr=False)
    hosts: tuple[tuple[str, int], ...]
    service: str
    options: dict[str, Any] = field(repr=False)
    sentinel_options: dict[str, Any] = field(repr=False)


def parse_place(url: str) -> Place:
    """Return the parts of a URL.

    Raises:
        InvalidArgumentError: it has none of the forms.
    """
    try:
        return _parse(url)
    except (AttributeError, TypeError, ValueError):  # no str, or one that is no URL
        was = repr(redact_url(url)) if isinstance(url, str) else f"of type {type(url).__name__}"
        message = f"the URL is {was}, must be {FORMS}{url_hint(url)}"
        raise InvalidArgumentError(message) from None


def url_hint(url: Any) -> str:
    """Return what to add to the refusal of a URL with a password or parameters of TLS, which may be the reason."""
    if not isinstance(url, str) or "://" not in url:
        return ""
    hint = "; write @ / ? # & in a password as %40 %2F %3F %23 %26" if "@" in url else ""
    return (
        f"{hint}; only rediss takes redis-py's ssl_ parameters, ssl_cert_reqs=required say" if "ssl_" in url else hint
    )


def redact_url(url: str) -> str:
    """Return a URL without its user, passwords and other secrets.

    Everything before the last @ is hidden: a password that was not percent-encoded may contain any character.
    """
    match = SCHEME.match(url)
    scheme = match[0] if match else ""
    login, at, address = url.removeprefix(scheme).rpartition("@")
    if PARAMETER.search(login):  # the @ belongs to its value, perhaps
        return f"{scheme}..."
    address, mark, query = address.partition("?")
    return f"{scheme}{'...@' if at else ''}{address}{mark}{'&'.join(map(_redact, query.split('&')))}"


def _redact(parameter: str) -> str:
    name = parameter.partition("=")[0]
    if not parameter or name in NO_SECRETS:
        return parameter
    return f"{name}=..." if name in SECRETS else "..."


def _parse(url: str) -> Place:
    scheme, _, rest = url.partition("://")
    if not url.isprintable() or url != url.strip():  # urlsplit drops such characters, redis-py and Celery do not
        raise ValueError
    tls, form = scheme.partition("+")[::2]
    if scheme == "unix" or not form:
        return _server(url)
    if tls not in {"redis", "rediss"} or form not in {SENTINEL, CLUSTER}:
        raise ValueError
    parts = urlsplit(f"//{rest}")
    if parts.fragment:  # the rest of a password with a #, say
        raise ValueError
    login, _, names = parts.netloc.rpartition("@")
    hosts = tuple(_host(name, SENTINEL_PORT if form == SENTINEL else SERVER_PORT) for name in names.split(","))
    service, _, database = parts.path.strip("/").partition("/")
    if form == CLUSTER:
        service, database = "", parts.path.strip("/")
    if bool(service) != (form == SENTINEL) or not (database or "0").isdecimal() or (form == CLUSTER and database):
        raise ValueError
    query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    of_sentinel = {OF_SENTINEL[name]: query.pop(name) for name in OF_SENTINEL if form == SENTINEL and name in query}
    if not _is_of_tls(tls, query):
        raise ValueError
    options = parse_url(f"{tls}://{f'{login}@' if login else ''}host/{database or 0}?{urlencode(query)}")
    options = {name: value for name, value in options.items() if name not in {"host", "port", "connection_class"}}
    if form == CLUSTER:
        options.pop("db", None)
    if tls == "rediss":
        options["ssl"] = True
    return Place(form, "", hosts, service, options, of_sentinel | (_tls(options) if form == SENTINEL else {}))


def _tls(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that sentinels share with the servers: who watches servers over TLS also serves with TLS."""
    return {name: value for name, value in options.items() if name == "ssl" or name in OF_TLS}


def _server(url: str) -> Place:
    parts = urlsplit(url)
    where = parts.path if parts.scheme == "unix" else parts.hostname
    query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    database = query.pop("db", "0") if parts.scheme == "unix" else parts.path.strip("/") or "0"
    if url.partition("://")[0] not in {"redis", "rediss", "unix"} or not where or not database.isdecimal():
        raise ValueError
    if not _is_of_tls(parts.scheme, query) or parts.fragment:  # redis-py's other options mean nothing to Celery
        raise ValueError
    parts.port  # noqa: B018  raises for a port that is none
    return Place(SERVER, url, (), "", {}, {})


def _is_of_tls(scheme: str, query: dict[str, str]) -> bool:
    """Whether redis-py takes the parameters, none without TLS."""
    allowed = OF_TLS if scheme == "rediss" else set()
    return query.keys() <= allowed and query.get("ssl_cert_reqs", "required") in CERT_REQS


def _host(name: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{name}")
    if not parts.hostname or parts.netloc != name or "@" in name or " " in name:
        raise ValueError
    return parts.hostname, port if parts.port is None else parts.port
