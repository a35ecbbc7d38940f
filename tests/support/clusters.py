"""A Redis Cluster of the tests' own: three primaries and their replicas, slots that move, primaries that die."""

from __future__ import annotations

import itertools
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from redis import Redis
from redis.cluster import ClusterNode, RedisCluster
from servers import Server, eventually, free_port

if TYPE_CHECKING:
    from pathlib import Path

HOST = "127.0.0.1"
PRIMARIES = 3  # the fewest that can vote a dead one out
SLOTS = 16384
NODE_TIMEOUT_MS = 1000  # so long a silence is a death


def ask(server: Server, *words: Any) -> Any:
    """Return the answer to one command, on a connection of its own."""
    with Redis(HOST, server.port, socket_timeout=10) as client:
        return client.execute_command(*words)


def in_sync(server: Server) -> bool:
    """Tell whether the server is a primary, or a replica that follows one."""
    return bool(ask(server, "INFO", "replication").get("master_link_status", "up") == "up")


class Cluster:
    """Three primaries that share the slots, each with so many replicas; `options` go to every node.

    Nothing is saved: a node that starts again knows the cluster (nodes.conf) and none of its keys.
    The first three nodes are the primaries, the next three their first replicas in the same order, and so on.
    """

    def __init__(self, engine: str, folder: Path, replicas: int = 0, options: dict[str, str] | None = None) -> None:
        count = PRIMARIES * (1 + replicas)
        ports = [free_port() for _ in range(2 * count)]
        settings = {
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-node-timeout": str(NODE_TIMEOUT_MS),
            "cluster-replica-validity-factor": "0",  # a replica stands for election however old its data
            "repl-diskless-sync-delay": "0",
        }
        self.nodes = [
            Server(engine, folder / f"node-{number}", settings | {"cluster-port": str(bus)} | (options or {}), port)
            for number, (port, bus) in enumerate(zip(ports[:count], ports[count:], strict=True))
        ]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes[:PRIMARIES])

    @property
    def alive(self) -> list[Server]:
        return [node for node in self.nodes if node.process]

    def client(self, **options: Any) -> RedisCluster:
        nodes = [ClusterNode(HOST, node.port) for node in self.alive]
        return RedisCluster(startup_nodes=nodes, **options)

    def start(self) -> Self:
        """Start the nodes, make a cluster of them and wait until it is whole."""
        with ExitStack() as undo:
            undo.callback(self.stop)
            for node in self.nodes:
                node.folder.mkdir(parents=True, exist_ok=True)
                node.start()
            self._join()
            eventually(self.whole)
            undo.pop_all()
        return self

    def stop(self) -> None:
        for node in self.nodes:
            node.stop(signal.SIGKILL)  # an orderly end would wait for replicas, and nothing is saved

    def _join(self) -> None:
        primaries, replicas = self.nodes[:PRIMARIES], self.nodes[PRIMARIES:]
        for number, node in enumerate(primaries):
            ask(node, "CLUSTER SET-CONFIG-EPOCH", number + 1)  # equal ones would have to be settled first
            first, end = (SLOTS * n // PRIMARIES for n in (number, number + 1))
            ask(node, "CLUSTER ADDSLOTSRANGE", first, end - 1)
        for one, other in itertools.combinations(self.nodes, 2):
            ask(one, "CLUSTER MEET", HOST, other.port, other.options["cluster-port"])
        eventually(self.acquainted)
        for node, primary in zip(replicas, itertools.cycle(primaries)):
            ask(node, "CLUSTER REPLICATE", _id(primary))

    def acquainted(self) -> bool:
        """Tell whether every node has a link to every other and finds none of them suspect."""
        ports = {node.port for node in self.nodes}
        return self.alive == self.nodes and all(
            view.keys() == ports
            and all(
                row["connected"] and not row["flags"] & {"handshake", "noaddr", "fail", "fail?"}
                for row in view.values()
            )
            for view in map(_view, self.nodes)
        )

    def settled(self) -> bool:
        """Tell whether the living nodes find the cluster in order, with the same owners of slots, all alive."""
        living = {node.port for node in self.alive}
        owners = [{port: row["slots"] for port, row in _view(node).items() if row["slots"]} for node in self.alive]
        return (
            owners[0].keys() <= living
            and owners.count(owners[0]) == len(owners)
            and all(ask(node, "CLUSTER INFO")["cluster_state"] == "ok" for node in self.alive)
        )

    def whole(self) -> bool:
        """Tell whether all nodes are there, agree, and have replicas that follow."""
        return self.acquainted() and self.settled() and all(map(in_sync, self.nodes))

    def owner(self, slot: int) -> Server:
        """Return the primary of the slot: of the living nodes that claim it the one with the newest claim."""
        claims = {int(row["epoch"]): node for node in self.alive if slot in _slots(row := _own(node))}
        return claims[max(claims)]

    def primaries(self) -> list[Server]:
        return [node for node in self.alive if "master" in _own(node)["flags"]]

    def replica_of(self, server: Server) -> Server:
        """Return a replica of the primary, the first that lives."""
        name = _id(server)
        return next(node for node in self.alive if _own(node)["master_id"] == name)

    def flush(self) -> None:
        for node in self.primaries():
            ask(node, "FLUSHALL")

    def move(self, slot: int, target: Server, batch: int = 10) -> None:
        """Move the slot with its keys to the target, while clients go on."""
        source = self.begin_move(slot, target)
        self.move_keys(slot, target, batch)
        self.end_move(slot, source, target)

    def begin_move(self, slot: int, target: Server) -> Server:
        """Open the slot: from here on its owner, which is returned, sends clients that miss a key to the target."""
        source = self.owner(slot)
        ask(target, "CLUSTER SETSLOT", slot, "IMPORTING", _id(source))
        ask(source, "CLUSTER SETSLOT", slot, "MIGRATING", _id(target))
        return source

    def move_keys(self, slot: int, target: Server, batch: int = 10) -> None:
        """Move the keys of an open slot, so many at a time."""
        source = self.owner(slot)
        while keys := ask(source, "CLUSTER GETKEYSINSLOT", slot, batch):
            ask(source, "MIGRATE", HOST, target.port, "", 0, 10_000, "KEYS", *keys)

    def end_move(self, slot: int, source: Server, target: Server) -> None:
        """Give an open slot, now empty, to the target."""
        others = [node for node in self.primaries() if node not in (source, target)]
        for node in (target, source, *others):  # the target first: a slot is never without an owner
            ask(node, "CLUSTER SETSLOT", slot, "NODE", _id(target))
        eventually(self.settled)

    def join(self, folder: Path) -> Server:
        """Start one more primary, without slots, and let it join."""
        bus = free_port()
        folder.mkdir()
        node = Server(self.nodes[0].engine, folder, self.nodes[0].options | {"cluster-port": str(bus)}, free_port())
        self.nodes.append(node.start())
        ask(self.nodes[0], "CLUSTER MEET", HOST, node.port, bus)
        eventually(self.whole)
        return node

    def kill(self, server: Server) -> None:
        """Kill the node and wait until what was its has another owner: a primary needs a replica."""
        server.stop(signal.SIGKILL)
        eventually(self.settled)

    def restart(self, server: Server) -> None:
        """Start a killed node again and wait until the cluster is whole; if it was voted out it is a replica now."""
        server.start()
        eventually(self.whole)


def _view(server: Server) -> dict[int, dict[str, Any]]:
    """Return what the node knows of each node, by port."""
    nodes = ask(server, "CLUSTER NODES")
    return {int(name.rpartition(":")[2]): row | {"flags": set(row["flags"].split(","))} for name, row in nodes.items()}


def _own(server: Server) -> dict[str, Any]:
    return next(row for row in _view(server).values() if "myself" in row["flags"])


def _id(server: Server) -> str:
    return str(_own(server)["node_id"])


def _slots(row: dict[str, Any]) -> set[int]:
    return {slot for ends in row["slots"] for slot in range(int(ends[0]), int(ends[-1]) + 1)}
