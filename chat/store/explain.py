"""Clearer messages for redis-py's errors when a URL does not fit its server. The exceptions keep their types."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError

from chat.store.urls import redact_url

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["describe_outage", "explain_cluster", "explain_server", "tls_hint"]

SERVER = "redis://host:port/db"
CLUSTER = "redis+cluster://host:port,host:port"
LOGIN_FORMS = "redis://:password@host or redis://user:password@host"
SENTINEL = "redis+sentinel://host:port/service/db"

# Regular expressions for redis-py's messages, and the messages that replace them. The first match is used.
EXPLANATIONS = (
    (
        r"No master found for '.*?' : .*auth:",
        "the sentinels ask for another password: put it into the URL, ?sentinel_password=...",
    ),
    (
        r"No master found for '(.*?)' : .* - (?:.*:)?(.*)",
        r"no sentinel can be asked for '\1' (\2): start them, or put their hosts and ports into the URL",
    ),
    (
        r"No master found for '(.*?)'",
        r"the sentinels name no primary for '\1': it is down, or the URL should end in another name, /service/db",
    ),
    (
        r"HELLO must be called with the client already authenticated|Authentication required",
        f"Redis asks for a password: put it into the URL, {LOGIN_FORMS}",
    ),
    (
        r"invalid username-password pair",
        f"Redis refuses the user or the password: correct them in the URL, {LOGIN_FORMS}",
    ),
    (r"unknown command .?SENTINEL", f"this is a Redis server, no sentinel: its URL is {SERVER}"),
    (r"unknown command .?GET\b", f"this is a sentinel, no Redis server: the URL of what it watches is {SENTINEL}"),
    (r"Cluster mode is not enabled on this node", f"this is no node of a cluster: its URL is {SERVER}"),
    (r"DB index is out of range", r"Redis has no database of that number: end the URL in another one, /0 say"),
    (r"Protocol [Ee]rror", "what answers there is no Redis: correct the URL"),
    (
        r"Redis Cluster cannot be connected\..*?: None",
        "no node of the cluster answers, or they have no slots yet: start them, or create the cluster",
    ),
    (
        r"Redis Cluster cannot be connected\..*?: (.*?)\.?$",
        r"no node of the cluster answers (\1): start them, or put their hosts and ports into the URL",
    ),
)
# Redirections reach the caller only from a client of one server: a cluster's client follows them.
OF_ONE_SERVER = (
    (
        r"^\d+ \S*:\d+$|Hash slot not served|The cluster is down|SELECT is not allowed in cluster mode",
        rf"this is a node of a cluster: its URL is {CLUSTER} (\g<0>)",
    ),
)

# Scheme, message and hint for mistakes about TLS; the first match is used. An outage may match "start it".
TLS = (
    ("rediss", r"Timeout connecting", "start it, or begin the URL with redis if it has no TLS"),
    ("rediss", r"(?:IP address|Hostname) mismatch", "put a name that the certificate has into the URL"),
    ("rediss", r"certificate has expired|not yet valid", "renew the server's certificate, or correct the clock here"),
    ("rediss", r"CERTIFICATE_VERIFY_FAILED", "name the certificate's authority in the URL, ?ssl_ca_certs=/path/ca.pem"),
    (
        "rediss",
        r"No such file|Permission denied|\bPEM\b|NO_CERTIFICATE_OR_CRL_FOUND|KEY_VALUES_MISMATCH",
        "correct the PEM files in the URL: ssl_ca_certs, ssl_certfile with its ssl_keyfile",
    ),
    (
        "rediss",
        r"EOF occurred|_ALERT_|reset by peer|Broken pipe|[Cc]onnection closed",
        "start it, or name a certificate that it accepts, ?ssl_certfile=/path/client.pem&ssl_keyfile=/path/client.key",
    ),
    (
        "rediss",
        r"no sentinel can be asked",  # redis-py does not say why
        "name their ports for TLS, and correct ssl_ca_certs, ssl_certfile and ssl_keyfile, which are for them too",
    ),
    ("redis", r"reset by peer|[Cc]onnection closed", "start it, or begin the URL with rediss if it expects TLS"),
)


def _explain(error: Exception, explanations: Iterable[tuple[str, str]]) -> None:
    """Replace the message of an error that does not say what to do, and keep the original as a note."""
    text = str(error)
    if getattr(error, "__notes__", None):
        return  # explained already, by the retry of the connection
    for pattern, meaning in explanations:
        if match := re.search(pattern, text, re.DOTALL):
            error.args = (match.expand(meaning),)
            error.add_note(f"redis-py says: {text}")
            return


def explain_server(error: Exception) -> None:
    """Replace the message of an error of one server's client, where it does not say what to do."""
    _explain(error, EXPLANATIONS + OF_ONE_SERVER)


def explain_cluster(error: Exception) -> RedisConnectionError:
    """Return the error of a cluster's client as the type that a client of one server would raise."""
    if isinstance(error, IndexError):  # redis-py's bug when a node's table of slots is empty
        return RedisConnectionError("the cluster has no slots yet: create it, or wait until that is done")
    if isinstance(error, AttributeError):
        # In Connection._send_packed_command, where redis-py closes the free connections of a node that failed another
        # task, of which this task has just taken one; or in _execute_command, where ASK names a node without slots.
        return RedisConnectionError("the connection was closed while it was in use, or the slot moves to a new node")
    refused = re.search("HELLO must be called|Authentication required|invalid username-password", str(error))
    explained = (AuthenticationError if refused else RedisConnectionError)(str(error))
    _explain(explained, EXPLANATIONS)
    return explained


def describe_outage(error: Exception, url: str) -> str:
    """Return one line for the user: why Redis cannot be used, and what to do."""
    where, text, hint = redact_url(url), " ".join(str(error).split()).rstrip("."), tls_hint(error, url)
    if getattr(error, "__notes__", None):
        return "; ".join(filter(None, (f"{where}: {text}", hint)))
    return f"no Redis at {where} ({text}): {hint or 'start one (a checkout has ./deploy/up), or set REDIS_URL'}"


def tls_hint(error: Exception, url: str) -> str:
    """Return what to do about a mistake about TLS, empty if the error shows none."""
    scheme = url.partition("://")[0].partition("+")[0]
    return next((hint for tls, pattern, hint in TLS if tls == scheme and re.search(pattern, str(error))), "")
