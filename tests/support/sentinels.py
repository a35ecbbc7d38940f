"""Sentinels of the tests' own: they watch a primary and its replicas and promote another when it dies."""

from __future__ import annotations

import signal
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from clusters import HOST, ask, in_sync
from guard import watch
from redis.exceptions import RedisError
from servers import BINARIES, Server, eventually, free_port

if TYPE_CHECKING:
    from pathlib import Path

SERVICE = "chat"
QUORUM = 2
SETTINGS = {
    f"sentinel monitor {SERVICE}": "",  # of the primary, once its port is known
    f"sentinel down-after-milliseconds {SERVICE}": "1000",
    f"sentinel failover-timeout {SERVICE}": "2000",  # a vote without a winner is held again after twice that
}
PERIODS_MS = {  # of their talk: seconds where networks are slow
    "info-period": 200,
    "ask-period": 200,
    "publish-period": 200,
    "tilt-period": 1000,  # so long they mistrust themselves after the machine stalled them
}


class Sentinel(Server):
    """A server in sentinel mode; its options are the lines of its file, where it also keeps what it learns."""

    def start(self) -> Self:
        file = self.folder / "sentinel.conf"
        if not file.exists():
            options = {"port": str(self.port), "bind": HOST, "dir": f'"{self.folder}"'} | self.options
            file.write_text("".join(f"{name} {value}\n" for name, value in options.items()), "utf-8")
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [BINARIES[self.engine], str(file), "--sentinel"], stdout=log, stderr=log, start_new_session=True
            )
        watch(self.process)
        eventually(self.answers)
        ask(self, "SENTINEL DEBUG", *(word for pair in PERIODS_MS.items() for word in pair))
        return self


class Sentinels:
    """A primary, replicas of it and the sentinels that watch them; `options` go to primary and replicas.

    Nothing is saved: a server that starts again has no keys until it follows the primary.
    """

    def __init__(
        self, engine: str, folder: Path, replicas: int = 1, sentinels: int = 3, options: dict[str, str] | None = None
    ) -> None:
        ports = [free_port() for _ in range(1 + replicas + sentinels)]
        watch = SETTINGS | {f"sentinel monitor {SERVICE}": f"{HOST} {ports[0]} {QUORUM}"}
        settings = {"repl-diskless-sync-delay": "0"} | (options or {})
        self.nodes = [Server(engine, folder / f"node-{port}", settings, port) for port in ports[: 1 + replicas]]
        self.sentinels = [Sentinel(engine, folder / f"sentinel-{port}", watch, port) for port in ports[1 + replicas :]]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'{HOST}:{node.port}' for node in self.sentinels)}/{SERVICE}/0"

    @property
    def alive(self) -> list[Server]:
        return [node for node in self.nodes if node.process]

    @property
    def watching(self) -> list[Sentinel]:
        return [node for node in self.sentinels if node.process]

    def start(self) -> Self:
        """Start everything and wait until all sentinels agree on the primary, see each other and the replicas."""
        with ExitStack() as undo:
            undo.callback(self.stop)
            primary, *replicas = self.nodes
            for node in (primary, *replicas):
                self._start(node)
            for node in replicas:
                ask(node, "REPLICAOF", HOST, primary.port)
            eventually(lambda: all(map(in_sync, replicas)))
            for sentinel in self.sentinels:
                self._start(sentinel)
            eventually(self.whole)
            undo.pop_all()
        return self

    @staticmethod
    def _start(node: Server) -> None:
        node.folder.mkdir(parents=True, exist_ok=True)
        node.start()

    def stop(self) -> None:
        for node in (*self.sentinels, *self.nodes):
            node.stop(signal.SIGKILL)  # an orderly end would wait for replicas, and nothing is saved

    def primary(self) -> Server:
        """Return the primary, as the first living sentinel names it."""
        return self._primary(self.watching[0])

    def replicas(self) -> list[Server]:
        """Return the living servers that are not the primary."""
        primary = self.primary()
        return [node for node in self.alive if node is not primary]

    def _primary(self, sentinel: Sentinel) -> Server:
        _, port = ask(sentinel, "SENTINEL GET-MASTER-ADDR-BY-NAME", SERVICE)
        return next(node for node in self.nodes if node.port == int(port))

    def agreed(self) -> bool:
        """Tell whether the living sentinels name the same primary and it is one, alive."""
        named = {self._primary(sentinel).port for sentinel in self.watching}
        primary = self.primary()
        return len(named) == 1 and primary in self.alive and _role(primary) == "master"

    def whole(self) -> bool:
        """Tell whether all sentinels agree, know each other, and see a replica that follows in every other server."""
        return (
            self.watching == self.sentinels
            and self.alive == self.nodes
            and self.agreed()
            and all(map(self._sees_all, self.sentinels))
            and all(_role(node) == "slave" and in_sync(node) for node in self.replicas())
        )

    def _sees_all(self, sentinel: Sentinel) -> bool:
        master = ask(sentinel, "SENTINEL MASTER", SERVICE)
        others = ask(sentinel, "SENTINEL SENTINELS", SERVICE)
        replicas = ask(sentinel, "SENTINEL SLAVES", SERVICE)
        return (
            len(others) == len(self.sentinels) - 1
            and len(replicas) == len(self.nodes) - 1
            and all(_is_well(row) for row in (master, *others, *replicas))
            and all(row["master-link-status"] == "ok" for row in replicas)
        )

    def writable(self) -> bool:
        """Tell whether the primary takes writes."""
        try:
            ask(self.primary(), "DEL", "no such key")
        except RedisError:  # READONLY of a replica, NOREPLICAS of min-replicas-to-write
            return False
        return True

    def kill_primary(self, *, writable: bool = True) -> Server:
        """Kill the primary, wait until another is promoted, and return that.

        It takes writes then; with `writable` false it need not, as when min-replicas-to-write wants more than are left.
        """
        self.primary().stop(signal.SIGKILL)
        eventually(lambda: self.agreed() and (self.writable() or not writable))
        return self.primary()

    def restart(self, server: Server) -> None:
        """Start a killed server again and wait until it is a replica and all is whole."""
        server.start()
        eventually(self.whole)


def _role(server: Server) -> str:
    return str(ask(server, "INFO", "replication")["role"])


def _is_well(row: dict[str, Any]) -> bool:
    return not set(row["flags"]) & {"s_down", "o_down", "disconnected"}
