"""An authority of the tests' own, and servers that speak TLS only, or TLS on a second port."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from redis import Redis
from redis.exceptions import RedisError
from servers import BINARIES, Server, free_port
from trustme import CA

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

HOST = "127.0.0.1"


@cache
def has_tls(engine: str) -> bool:
    """Tell whether the server was built with TLS: then it starts to look for a certificate, and has none."""
    words = [BINARIES[engine], "--port", "0", "--tls-port", str(free_port())]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    return "No tls-cert-file configured" in done.stdout + done.stderr


class Authority:
    """An authority, with its certificate and those that it issues as files in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._ca, self._folder, self._issued = CA(), folder, 0
        self.path = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.path))

    def issue(self, name: str, ends: datetime | None = None) -> dict[str, str]:
        """Return the URL's parameters for a certificate with a name, or an address, and its key."""
        made = self._ca.issue_cert(name, not_after=ends)
        self._issued += 1
        certificate, key = (self._folder / f"{self._issued}.{kind}" for kind in ("pem", "key"))
        made.cert_chain_pems[0].write_to_path(str(certificate))
        made.private_key_pem.write_to_path(str(key))
        return {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}

    def trusted(self, **more: str) -> dict[str, str]:
        """Return the URL's parameters to trust what the authority issues, and more of them."""
        return {"ssl_ca_certs": str(self.path)} | more

    def options(self, name: str = HOST, ends: datetime | None = None, *, mutual: bool = False) -> dict[str, str]:
        """Return the options of a server that also speaks TLS, to others too, with a certificate for the name."""
        issued = self.issue(name, ends)
        return {
            "tls-port": str(free_port()),
            "tls-cert-file": issued["ssl_certfile"],
            "tls-key-file": issued["ssl_keyfile"],
            "tls-ca-cert-file": str(self.path),
            "tls-auth-clients": "yes" if mutual else "no",
            "tls-replication": "yes",
        }


def tls_port(server: Server) -> str:
    return f"{HOST}:{server.options['tls-port']}"


def with_query(url: str, parameters: dict[str, str]) -> str:
    return f"{url}?{urlencode(parameters, safe='/')}" if parameters else url


@dataclass
class TlsServer(Server):
    """A server without a port for plain connections."""

    def __post_init__(self) -> None:
        self.options = {"port": "0"} | self.options

    @property
    def url(self) -> str:
        return f"rediss://{tls_port(self)}/0"

    def client(self) -> Redis:
        certificate, key = (self.options[name] for name in ("tls-cert-file", "tls-key-file"))
        ours = {"ssl_certfile": certificate, "ssl_keyfile": key, "ssl_cert_reqs": "none"}
        return Redis.from_url(with_query(self.url, ours))

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except RedisError:
            return False
